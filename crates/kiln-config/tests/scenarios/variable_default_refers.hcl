stack "shop" {}

variable "a" {
  default = local.b
}

locals {
  b = 1
}
#: expect
# error[reference-not-allowed]: a default can't refer to anything
#  --> stack.hcl:4:13
#   |
# 4 |   default = local.b
#   |             ^^^^^
#   = help: use a `local` for values that are derived from others
