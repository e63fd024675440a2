stack "shop" {}

locals {
  a: 1
}
#: expect
# error[syntax]: found `:`, expected `{`, `=`, `"` or identifier
#  --> stack.hcl:4:4
#   |
# 4 |   a: 1
#   |    ^
#   = help: attributes are written with `=`
