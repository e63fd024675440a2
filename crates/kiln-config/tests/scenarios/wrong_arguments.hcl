stack "shop" {}

locals {
  a = upper()
  b = substr("x", "y", 1)
  c = replace("x", "/(/", "")
  d = format("%d", "x")
}
#: expect
# error[wrong-arguments]: `upper` takes 1 argument, found 0
#  --> stack.hcl:4:7
#   |
# 4 |   a = upper()
#   |       ^^^^^^^
#   = help: call it as `upper(string)`
#
# error[wrong-arguments]: argument 2 of `substr`: expected a number, found a string
#  --> stack.hcl:5:19
#   |
# 5 |   b = substr("x", "y", 1)
#   |                   ^^^
#   = help: call it as `substr(string, offset, length)`, for example `substr("hello", 1, 3)`
#
# error[wrong-arguments]: argument 2 of `replace`: the pattern is not valid: unclosed group
#  --> stack.hcl:6:20
#   |
# 6 |   c = replace("x", "/(/", "")
#   |                    ^^^^^
#   = help: call it as `replace(string, search, replacement)`, for example `replace("a1b2", "/[0-9]/", "")`
#
# error[wrong-arguments]: argument 2 of `format`: expected a number, found a string
#  --> stack.hcl:7:20
#   |
# 7 |   d = format("%d", "x")
#   |                    ^^^
#   = help: call it as `format(spec, value, …)`, for example `format("%s has %03d", "web", 7)`
