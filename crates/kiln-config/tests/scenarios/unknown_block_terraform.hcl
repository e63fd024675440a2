stack "shop" {}

resource "aws_instance" "web" {}
#: expect
# error[unknown-block]: there is no block `resource`
#  --> stack.hcl:3:1
#   |
# 3 | resource "aws_instance" "web" {}
#   | ^^^^^^^^
#   = help: that is Terraform's; a stack is made of `image`, `service`, `route` and the other blocks of `docs/language.md`
