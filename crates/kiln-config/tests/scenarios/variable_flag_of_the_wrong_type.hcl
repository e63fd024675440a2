#: var n=many
#: env-var l=[1,
stack "shop" {}

variable "n" {
  type = number
}

variable "l" {
  type = list(number)
}
#: expect
# error[wrong-type]: -var n: expected a number, found a string
#  --> stack.hcl:3:1
#   |
# 3 | variable "n" {
#   | ^^^^^^^^^^^^ declared as number
#
# error[wrong-type]: KILN_VAR_l: `[` is never closed
#  --> stack.hcl:7:1
#   |
# 7 | variable "l" {
#   | ^^^^^^^^^^^^ declared as list(number)
