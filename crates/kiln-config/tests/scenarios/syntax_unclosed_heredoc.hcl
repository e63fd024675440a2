stack "shop" {}

locals {
  a = <<-EOT
    text
}
#: expect
# error[syntax]: this heredoc is never closed: no line holds `EOT` alone
#  --> stack.hcl:4:7
#   |
# 4 |   a = <<-EOT
#   |       ^^^^^ opened here
#   = help: end it with its delimiter on a line of its own
