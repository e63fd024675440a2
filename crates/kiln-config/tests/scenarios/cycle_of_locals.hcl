stack "shop" {}

locals {
  a = local.b
  b = "${local.c}!"
  c = [for x in [1] : local.a]
  d = local.a
}
#: expect
# error[cycle]: local.a depends on itself: local.a -> local.b -> local.c -> local.a
#  --> stack.hcl:4:7
#   |
# 4 |   a = local.b
#   |       ^^^^^ refers to local.b
#  ::: stack.hcl:5:10
#   |
# 5 |   b = "${local.c}!"
#   |          ----- refers to local.c
#  ::: stack.hcl:6:23
#   |
# 6 |   c = [for x in [1] : local.a]
#   |                       ----- refers to local.a
