stack "shop" {}

locals {
  a = local.a + 1
}
#: expect
# error[cycle]: local.a depends on itself: local.a -> local.a
#  --> stack.hcl:4:7
#   |
# 4 |   a = local.a + 1
#   |       ^^^^^ refers to local.a
