stack "shop" {}

locals {
  a = 1
}

locals {
  a = 2
}
#: expect
# error[duplicate]: `local "a"` is declared twice
#  --> stack.hcl:8:3
#   |
# 8 |   a = 2
#   |   ^ again here
#  ::: stack.hcl:4:3
#   |
# 4 |   a = 1
#   |   - first here
