stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

locals {
  a = 1 / 0
  b = local.a
  c = [local.a, local.b]
}

service "web" {
  image = image.web
  env      = { A = local.a }
  replicas = local.b

  port "http" {
    number = 8080
  }
}
#: expect
# error[division-by-zero]: division by zero
#  --> stack.hcl:9:11
#   |
# 9 |   a = 1 / 0
#   |           ^
