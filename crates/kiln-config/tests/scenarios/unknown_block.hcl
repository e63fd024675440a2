stack "shop" {}

servce "web" {}
#: expect
# error[unknown-block]: there is no block `servce`
#  --> stack.hcl:3:1
#   |
# 3 | servce "web" {}
#   | ^^^^^^
#   = help: did you mean `service`?
