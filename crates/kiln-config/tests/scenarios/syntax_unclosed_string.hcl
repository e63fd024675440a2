stack "shop" {}

locals {
  a = "x
  b = 1
}
#: expect
# error[syntax]: this string is never closed
#  --> stack.hcl:4:7
#   |
# 4 |   a = "x
#   |       ^ opened here
#  ::: stack.hcl:4:9
#   |
# 4 |   a = "x
#   |         - the line ends here
#   = help: close it with `"`; text of several lines goes into a heredoc (`<<-EOT`)
