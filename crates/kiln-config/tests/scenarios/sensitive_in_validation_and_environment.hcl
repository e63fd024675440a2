stack "shop" {}

variable "a" {
  sensitive = true
  scope     = "environment"

  validation {
    condition     = length(var.a) > 100
    error_message = "Not ${var.a}."
  }
}

environment "dev" {
  variables = { a = "hunter2" }
}
#: expect
# error[validation]: `var.a`: a condition on it does not hold (the message holds a sensitive value)
#   --> stack.hcl:8:21
#    |
#  8 |     condition     = length(var.a) > 100
#    |                     ^^^^^^^^^^^^^^^^^^^ this does not hold
#   ::: stack.hcl:14:21
#    |
# 14 |   variables = { a = (sensitive) }
#    |                     ----------- the value comes from here
