stack "shop" {}

locals {
  a = 1
  b = 2
  a = 3
}
#: expect
# error[duplicate]: the attribute `a` is set twice
#  --> stack.hcl:6:3
#   |
# 6 |   a = 3
#   |   ^ again here
#  ::: stack.hcl:4:3
#   |
# 4 |   a = 1
#   |   - first set here
