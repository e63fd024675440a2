stack "shop" {}

locals {
  a = "\q"
}
#: expect
# error[syntax]: `\q` is no escape sequence
#  --> stack.hcl:4:8
#   |
# 4 |   a = "\q"
#   |        ^^
#   = help: there are `\n`, `\r`, `\t`, `\"`, `\\`, `\uNNNN` and `\UNNNNNNNN`
