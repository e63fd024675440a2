stack "shop" {}

variable "n" {
  type    = number
  default = "x"
}

variable "l" {
  type    = list(number)
  default = [1, "x"]
}

variable "o" {
  type = object({ name = string, port = optional(number, 80) })
  default = { nme = "x" }
}
#: expect
# error[wrong-type]: a default has the wrong type: expected a number, found a string
#  --> stack.hcl:5:13
#   |
# 5 |   default = "x"
#   |             ^^^ expected a number
#
# error[wrong-type]: a default has the wrong type: at element 1: expected a number, found a string
#   --> stack.hcl:10:13
#    |
# 10 |   default = [1, "x"]
#    |             ^^^^^^^^ expected a list(number)
#
# error[wrong-type]: a default has the wrong type: attribute "name" is missing
#   --> stack.hcl:15:13
#    |
# 15 |   default = { nme = "x" }
#    |             ^^^^^^^^^^^^^ expected an object({name = string, port = optional(number)})
