stack "shop" {}

locals {
  a = 'x'
}
#: expect
# error[syntax]: a value is missing: found `'`
#  --> stack.hcl:4:7
#   |
# 4 |   a = 'x'
#   |       ^
#   = help: strings are written with double quotes
