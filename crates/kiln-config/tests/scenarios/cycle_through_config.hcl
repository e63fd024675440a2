stack "shop" {}

config "shop" {
  a = local.x
}

locals {
  x = config.shop.a
}
#: expect
# error[cycle]: local.x depends on itself: local.x -> config.shop.a -> local.x
#  --> stack.hcl:8:7
#   |
# 8 |   x = config.shop.a
#   |       ^^^^^^ refers to config.shop.a
#  ::: stack.hcl:4:7
#   |
# 4 |   a = local.x
#   |       ----- refers to local.x
