locals {
  a = 1
}
#: expect
# error[missing-stack]: no file has a `stack` block
#  --> stack.hcl:1:1
#   |
# 1 | locals {
#   | ^
#   = help: name the stack: `stack "shop" {}`
