stack "shop" {}

locals {
  a = 1
}
}
#: expect
# error[syntax]: `}` closes nothing
#  --> stack.hcl:6:1
#   |
# 6 | }
#   | ^
#   = help: every `{`, `[` and `(` needs its counterpart
