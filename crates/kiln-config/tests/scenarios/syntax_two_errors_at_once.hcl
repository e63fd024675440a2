stack "shop" {}

locals {
  a = 
}

volume "data" {
  b = [1 2]
}

service "x" {
  imge = 1
}
#: expect
# error[syntax]: a value is missing: found the end of the line
#  --> stack.hcl:4:7
#   |
# 4 |   a =
#   |       ^
#   = help: give a value, such as a string in quotes
#
# error[syntax]: found `2`, expected `]`
#  --> stack.hcl:8:10
#   |
# 8 |   b = [1 2]
#   |          ^
#
# error[missing-attribute]: `service` needs the attribute `image`
#   --> stack.hcl:11:1
#    |
# 11 | service "x" {
#    | ^^^^^^^^^^^
#    = help: image = … (image): What it boots: `image.NAME`. A changed image replaces the instances.
#
# error[unknown-attribute]: `service` has no attribute `imge`
#   --> stack.hcl:12:3
#    |
# 12 |   imge = 1
#    |   ^^^^
#    = help: did you mean `image`?
