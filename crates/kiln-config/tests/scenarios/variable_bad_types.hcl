stack "shop" {}

variable "a" {
  type    = "string"
  default = 1
}

variable "b" {
  type    = list
  default = 1
}

variable "c" {
  type    = integer
  default = 1
}

variable "d" {
  type    = object({ a = strng })
  default = {}
}

variable "e" {
  scope   = "env"
  default = 1
}
#: expect
# error[invalid-type]: the type is written without quotes: string
#  --> stack.hcl:4:13
#   |
# 4 |   type    = "string"
#   |             ^^^^^^^^
#   = help: types are string, number, bool, any, list(…), set(…), map(…), object({…}) and tuple([…])
#
# error[invalid-type]: `list` needs the type of its elements, as in `list(string)`
#  --> stack.hcl:9:13
#   |
# 9 |   type    = list
#   |             ^^^^
#   = help: types are string, number, bool, any, list(…), set(…), map(…), object({…}) and tuple([…])
#
# error[invalid-type]: there is no type `integer`; did you mean `number`?
#   --> stack.hcl:14:13
#    |
# 14 |   type    = integer
#    |             ^^^^^^^
#    = help: types are string, number, bool, any, list(…), set(…), map(…), object({…}) and tuple([…])
#
# error[invalid-type]: there is no type `strng`
#   --> stack.hcl:19:26
#    |
# 19 |   type    = object({ a = strng })
#    |                          ^^^^^
#    = help: types are string, number, bool, any, list(…), set(…), map(…), object({…}) and tuple([…])
#
# error[wrong-value]: `scope` is "stack" or "environment"
#   --> stack.hcl:24:13
#    |
# 24 |   scope   = "env"
#    |             ^^^^^
