stack "shop" {}

replicas = 3
#: expect
# error[unknown-attribute]: `replicas` can't stand outside of a block
#  --> stack.hcl:3:1
#   |
# 3 | replicas = 3
#   | ^^^^^^^^
#   = help: values with a name go into `locals { … }`
