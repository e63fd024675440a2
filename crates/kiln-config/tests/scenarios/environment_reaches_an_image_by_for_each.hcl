stack "shop" {}

variable "regions" {
  default = ["eu"]
  scope   = "environment"
}

image "web" {
  for_each = toset(var.regions)
  from     = "scratch"
}
#: expect
# error[environment-in-image]: image "web" depends on what an environment decides: var.regions
#  --> stack.hcl:9:20
#   |
# 9 |   for_each = toset(var.regions)
#   |                    ^^^^^^^^^^^ refers to it here
#  ::: stack.hcl:3:1
#   |
# 3 | variable "regions" {
#   | ------------------ has `scope = "environment"`
#   = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
