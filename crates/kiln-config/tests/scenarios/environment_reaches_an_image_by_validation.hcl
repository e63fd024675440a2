stack "shop" {}

variable "env_size" {
  default = 1
  scope   = "environment"
}

variable "stack_size" {
  default = 1

  validation {
    condition     = var.stack_size == var.env_size
    error_message = "Sizes differ."
  }
}

image "web" {
  from   = "scratch"
  labels = { size = var.stack_size }
}
#: expect
# error[environment-in-image]: image "web" depends on what an environment decides: var.stack_size -> var.env_size
#   --> stack.hcl:19:21
#    |
# 19 |   labels = { size = var.stack_size }
#    |                     ^^^^^^^^^^^^^^ refers to it here
#   ::: stack.hcl:12:39
#    |
# 12 |     condition     = var.stack_size == var.env_size
#    |                                       --- var.stack_size depends on var.env_size
#   ::: stack.hcl:3:1
#    |
#  3 | variable "env_size" {
#    | ------------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
