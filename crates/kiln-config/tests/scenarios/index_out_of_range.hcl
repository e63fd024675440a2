stack "shop" {}

locals {
  list = ["a"]
  a    = local.list[3]
  b    = { x = 1 }["y"]
  c    = { apple = 1 }.aple
}
#: expect
# error[no-such-key]: index 3 is out of range: the list has 1 element
#  --> stack.hcl:5:20
#   |
# 5 |   a    = local.list[3]
#   |                    ^^^
#
# error[no-such-key]: an object has no key "y"
#  --> stack.hcl:6:19
#   |
# 6 |   b    = { x = 1 }["y"]
#   |                   ^^^^^
#
# error[unknown-attribute]: an object has no attribute `aple`
#  --> stack.hcl:7:24
#   |
# 7 |   c    = { apple = 1 }.aple
#   |                        ^^^^
#  ::: stack.hcl:7:10
#   |
# 7 |   c    = { apple = 1 }.aple
#   |          ------------- the value comes from here
#   = help: did you mean `apple`?
