stack "shop" {}

secret "a" {}

secret "b" {
  file = "x"
  env  = "X"
}

secret "c" {
  file = "/run/keys/c"
}
#: expect
# error[missing-attribute]: secret "a" has no source
#  --> stack.hcl:3:1
#   |
# 3 | secret "a" {}
#   | ^^^^^^^^^^
#   = help: set `file` or `env`, and not both
#
# error[missing-attribute]: secret "b" has two sources
#  --> stack.hcl:5:1
#   |
# 5 | secret "b" {
#   | ^^^^^^^^^^
#   = help: set `file` or `env`, and not both
