stack "shop" {}

locals {
  grüße = "日本" +
}
#: expect
# error[syntax]: a value is missing: found the end of the line
#  --> stack.hcl:4:17
#   |
# 4 |   grüße = "日本" +
#   |                   ^
#   = help: give a value, such as a string in quotes
