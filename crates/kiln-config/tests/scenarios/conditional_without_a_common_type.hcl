stack "shop" {}

locals {
  a = true ? [1] : { b = 1 }
}
#: expect
# error[wrong-type]: the two results have no type in common
#  --> stack.hcl:4:7
#   |
# 4 |   a = true ? [1] : { b = 1 }
#   |       ^^^^^^^^^^^^^^^^^^^^^^ a tuple([number]) or an object({b = number})
