stack "shop" {}

locals {
  a = "x ${local.b"
  b = 1
}
#: expect
# error[syntax]: this interpolation is never closed
#  --> stack.hcl:4:10
#   |
# 4 |   a = "x ${local.b"
#   |          ^^ opened here
#  ::: stack.hcl:4:19
#   |
# 4 |   a = "x ${local.b"
#   |                   - the string ends here
#   = help: close it with `}`, or write `$${` for a literal `${`
