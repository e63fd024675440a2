stack "shop" {}

locals {
  a = { local.b = 1 }
  b = "x"
}
#: expect
# error[syntax]: this key could be meant in two ways
#  --> stack.hcl:4:9
#   |
# 4 |   a = { local.b = 1 }
#   |         ^^^^^^^
#   = help: write `(name.attribute)` for its value, or quote it for the text itself
