stack "shop" {}

locals {
  a = 1

service "web" {
  image = image.wbe
}
#: expect
# error[syntax]: `{` is never closed
#  --> stack.hcl:3:8
#   |
# 3 | locals {
#   |        ^ opened here
#   = help: every `{`, `[` and `(` needs its counterpart
