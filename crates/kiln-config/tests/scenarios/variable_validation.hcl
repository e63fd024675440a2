#: var n=0
stack "shop" {}

variable "n" {
  type = number

  validation {
    condition     = var.n > 0
    error_message = "At least one, not ${var.n}."
  }

  validation {
    condition     = var.n < 10
    error_message = "Too many."
  }
}
#: expect
# error[validation]: `var.n`: At least one, not 0.
#  --> stack.hcl:7:21
#   |
# 7 |     condition     = var.n > 0
#   |                     ^^^^^^^^^ this does not hold
