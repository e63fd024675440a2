stack "shop" {}

locals {
  a = true ? 1 : local.missing
}
#: expect
# error[unknown-name]: there is no `local.missing`
#  --> stack.hcl:4:24
#   |
# 4 |   a = true ? 1 : local.missing
#   |                        ^^^^^^^
#   = help: declared are: a
