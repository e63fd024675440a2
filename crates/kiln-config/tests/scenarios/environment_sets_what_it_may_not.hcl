stack "shop" {}

variable "tag" {
  default = 1
}

environment "dev" {
  variables = {
    tag = 2
    tga = 3
  }
}

environment "prod" {
  replicas = 3
}
#: expect
# error[not-environment-scoped]: `var.tag` is not decided by environments
#  --> stack.hcl:9:5
#   |
# 9 |     tag = 2
#   |     ^^^
#  ::: stack.hcl:3:1
#   |
# 3 | variable "tag" {
#   | -------------- declared here
#   = help: declare it with `scope = "environment"`
#
# error[unknown-variable]: there is no `variable "tga"`
#   --> stack.hcl:10:5
#    |
# 10 |     tga = 3
#    |     ^^^
#    = help: did you mean `tag`?
#
# error[unknown-attribute]: `environment` has no attribute `replicas`
#   --> stack.hcl:15:3
#    |
# 15 |   replicas = 3
#    |   ^^^^^^^^
