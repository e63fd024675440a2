stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

worker "w" {
  image = image.web
}

locals {
  a = service.w
}
#: expect
# error[unknown-name]: there is no `service.w`
#   --> stack.hcl:13:15
#    |
# 13 |   a = service.w
#    |               ^
#    = help: it is a worker: `worker.w`
