stack "shop" {}

locals {
  a = [for x in range(60000) : [for y in range(60000) : x * y]]
}
#: expect
# error[too-large]: evaluating this stack takes more than 5000000 steps
#  --> stack.hcl:4:42
#   |
# 4 |   a = [for x in range(60000) : [for y in range(60000) : x * y]]
#   |                                          ^^^^^^^^^^^^ stopped here
