#: var b=hunter2
stack "shop" {}

variable "a" {
  type      = number
  sensitive = true
  default   = "hunter2"
}

variable "b" {
  type      = number
  sensitive = true
}

variable "c" {
  sensitive = true
  default   = { hunter2 = "x" }
}

locals {
  x = var.c["nope"]
  y = parseint(sensitive("hunter2"), 10)
  z = jsondecode(sensitive("hunter2"))
  w = { a = 1 }[sensitive("hunter2")]
}
#: expect
# error[wrong-type]: a default has the wrong type: expected a number, found a sensitive value that is none
#  --> stack.hcl:6:15
#   |
# 6 |   default   = (sensitive)
#   |               ^^^^^^^^^^^ expected a number
#
# error[wrong-type]: -var b: the value does not fit its type
#  --> stack.hcl:9:1
#   |
# 9 | variable "b" {
#   | ^^^^^^^^^^^^ declared as number
#
# error[no-such-key]: there is no such key in it
#   --> stack.hcl:20:12
#    |
# 20 |   x = var.c["nope"]
#    |            ^^^^^^^^
#
# error[wrong-arguments]: argument 1 of `parseint`: the sensitive value does not fit
#   --> stack.hcl:21:16
#    |
# 21 |   y = parseint(sensitive((sensitive)), 10)
#    |                ^^^^^^^^^^^^^^^^^^^^^^
#    = help: call it as `parseint(string, base)`, for example `parseint("ff", 16)`
#
# error[wrong-arguments]: argument 1 of `jsondecode`: the sensitive value does not fit
#   --> stack.hcl:22:18
#    |
# 22 |   z = jsondecode(sensitive((sensitive)))
#    |                  ^^^^^^^^^^^^^^^^^^^^^^
#    = help: call it as `jsondecode(string)`, for example `jsondecode("{\"a\": [1]}")`
#
# error[no-such-key]: there is no such key in it
#   --> stack.hcl:23:16
#    |
# 23 |   w = { a = 1 }[sensitive((sensitive))]
#    |                ^^^^^^^^^^^^^^^^^^^^^^^^
