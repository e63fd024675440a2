stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

locals {
  a = var.replicsa
  b = local.aa
  c = config.shop.greetng
  d = image.wbe
  e = base.debian.slm
  f = service.wbe.url
  g = base.alpine.x
  h = foo.bar
  i = web
  j = replicas
}

variable "replicas" {
  default = 1
}

config "shop" {
  greeting = "Hello"
}

base "debian" "slim" {
  suite = "bookworm"
}

service "web" {
  image = image.web

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-name]: there is no `var.replicsa`
#  --> stack.hcl:9:11
#   |
# 9 |   a = var.replicsa
#   |           ^^^^^^^^
#   = help: did you mean `replicas`?
#
# error[unknown-name]: there is no `local.aa`
#   --> stack.hcl:10:13
#    |
# 10 |   b = local.aa
#    |             ^^
#
# error[unknown-name]: there is no `config.shop.greetng`
#   --> stack.hcl:11:19
#    |
# 11 |   c = config.shop.greetng
#    |                   ^^^^^^^
#    = help: did you mean `greeting`?
#
# error[unknown-name]: there is no `image.wbe`
#   --> stack.hcl:12:13
#    |
# 12 |   d = image.wbe
#    |             ^^^
#    = help: did you mean `web`?
#
# error[unknown-name]: there is no `base.debian.slm`
#   --> stack.hcl:13:19
#    |
# 13 |   e = base.debian.slm
#    |                   ^^^
#    = help: did you mean `slim`?
#
# error[unknown-name]: there is no `service.wbe`
#   --> stack.hcl:14:15
#    |
# 14 |   f = service.wbe.url
#    |               ^^^
#    = help: did you mean `web`?
#
# error[unknown-name]: there is no kind of base `alpine`
#   --> stack.hcl:15:12
#    |
# 15 |   g = base.alpine.x
#    |            ^^^^^^
#    = help: the kind is `debian`
#
# error[unknown-name]: there is no `foo`
#   --> stack.hcl:16:7
#    |
# 16 |   h = foo.bar
#    |       ^^^
#    = help: text is written in quotes
#
# error[unknown-name]: there is no `web`
#   --> stack.hcl:17:7
#    |
# 17 |   i = web
#    |       ^^^
#    = help: did you mean `image.web`?
#
# error[unknown-name]: there is no `replicas`
#   --> stack.hcl:18:7
#    |
# 18 |   j = replicas
#    |       ^^^^^^^^
#    = help: did you mean `var.replicas`?
