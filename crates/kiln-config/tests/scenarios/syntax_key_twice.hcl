stack "shop" {}

locals {
  a = {
    x = 1
    x = 2
  }
}
#: expect
# error[duplicate]: the key `x` is set twice
#  --> stack.hcl:6:5
#   |
# 6 |     x = 2
#   |     ^ again here
#  ::: stack.hcl:5:5
#   |
# 5 |     x = 1
#   |     - first set here
