stack "shop" {}

variable "tag" {
  default = "a"
  scope   = "environment"
}

locals {
  name   = "x-${var.tag}"
  labels = { name = local.name }
}

config "build" {
  labels = local.labels
}

image "web" {
  from    = "scratch"
  command = ["/web"]
  labels  = config.build.labels

  copy {
    from = "a/${var.tag}"
    to   = "/a"
  }

  test "starts" {
    env = local.labels
    exec {
      command = ["/x"]
    }
  }
}

base "debian" "slim" {
  suite    = "bookworm"
  packages = true ? [] : [var.tag]
}
#: expect
# error[environment-in-image]: image "web" depends on what an environment decides: config.build.labels -> local.labels -> local.name -> var.tag
#   --> stack.hcl:20:13
#    |
# 20 |   labels  = config.build.labels
#    |             ^^^^^^^^^^^^^^^^^^^ refers to it here
#   ::: stack.hcl:14:12
#    |
# 14 |   labels = local.labels
#    |            ----- config.build.labels depends on local.labels
#   ::: stack.hcl:10:21
#    |
# 10 |   labels = { name = local.name }
#    |                     ----- local.labels depends on local.name
#   ::: stack.hcl:9:17
#    |
#  9 |   name   = "x-${var.tag}"
#    |                 --- local.name depends on var.tag
#   ::: stack.hcl:3:1
#    |
#  3 | variable "tag" {
#    | -------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
#
# error[environment-in-image]: image "web" depends on what an environment decides: var.tag
#   --> stack.hcl:23:17
#    |
# 23 |     from = "a/${var.tag}"
#    |                 ^^^^^^^ refers to it here
#   ::: stack.hcl:3:1
#    |
#  3 | variable "tag" {
#    | -------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
#
# error[environment-in-image]: image "web" depends on what an environment decides: local.labels -> local.name -> var.tag
#   --> stack.hcl:28:11
#    |
# 28 |     env = local.labels
#    |           ^^^^^^^^^^^^ refers to it here
#   ::: stack.hcl:10:21
#    |
# 10 |   labels = { name = local.name }
#    |                     ----- local.labels depends on local.name
#   ::: stack.hcl:9:17
#    |
#  9 |   name   = "x-${var.tag}"
#    |                 --- local.name depends on var.tag
#   ::: stack.hcl:3:1
#    |
#  3 | variable "tag" {
#    | -------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
#
# error[environment-in-image]: base "slim" depends on what an environment decides: var.tag
#   --> stack.hcl:37:27
#    |
# 37 |   packages = true ? [] : [var.tag]
#    |                           ^^^^^^^ refers to it here
#   ::: stack.hcl:3:1
#    |
#  3 | variable "tag" {
#    | -------------- has `scope = "environment"`
#    = help: a release must be the same in every environment; use a variable without this scope, or pass the value to the service in `env`
