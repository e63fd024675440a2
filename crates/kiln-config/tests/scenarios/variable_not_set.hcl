stack "shop" {}

variable "replicas" {
  type  = number
  scope = "environment"
}

variable "name" {}

locals {
  a = var.replicas + 1
}
#: expect
# error[variable-not-set]: `var.replicas` is not set
#  --> stack.hcl:3:1
#   |
# 3 | variable "replicas" {
#   | ^^^^^^^^^^^^^^^^^^^
#   = help: set it with `-var replicas=…`, with KILN_VAR_replicas, or give it a default; or in `environment "dev" { variables = { replicas = … } }`
#
# error[variable-not-set]: `var.name` is not set
#  --> stack.hcl:8:1
#   |
# 8 | variable "name" {}
#   | ^^^^^^^^^^^^^^^
#   = help: set it with `-var name=…`, with KILN_VAR_name, or give it a default
