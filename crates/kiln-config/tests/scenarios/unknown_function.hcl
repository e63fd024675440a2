stack "shop" {}

locals {
  a = uper("x")
  b = yamldecode("x")
  c = false ? nosuch() : 1
}
#: expect
# error[unknown-function]: there is no function `uper`
#  --> stack.hcl:4:7
#   |
# 4 |   a = uper("x")
#   |       ^^^^
#   = help: did you mean `upper`?
#
# error[unknown-function]: there is no function `yamldecode`
#  --> stack.hcl:5:7
#   |
# 5 |   b = yamldecode("x")
#   |       ^^^^^^^^^^
#   = help: use `jsondecode` and `jsonencode`
#
# error[unknown-function]: there is no function `nosuch`
#  --> stack.hcl:6:15
#   |
# 6 |   c = false ? nosuch() : 1
#   |               ^^^^^^
