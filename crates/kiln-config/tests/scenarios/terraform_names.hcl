stack "shop" {}

locals {
  a = path.module
  b = count.index
  c = each.key
  d = data.x.y
  e = var
}
#: expect
# error[unknown-name]: there is no `path`
#  --> stack.hcl:4:7
#   |
# 4 |   a = path.module
#   |       ^^^^
#   = help: paths are relative to the stack folder as they are
#
# error[unknown-name]: there is no `count`
#  --> stack.hcl:5:7
#   |
# 5 |   b = count.index
#   |       ^^^^^
#   = help: there is no `count`; use `replicas` or `for_each`
#
# error[unknown-name]: there is no `each`
#  --> stack.hcl:6:7
#   |
# 6 |   c = each.key
#   |       ^^^^
#   = help: `each` is known in blocks with `for_each` only
#
# error[unknown-name]: there is no `data`
#  --> stack.hcl:7:7
#   |
# 7 |   d = data.x.y
#   |       ^^^^
#   = help: that is Terraform's, a stack has none
#
# error[unknown-name]: `var` alone is no value
#  --> stack.hcl:8:7
#   |
# 8 |   e = var
#   |       ^^^
#   = help: write `var.NAME`
