stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

locals {
  n = [1]
}

service "web" {
  image = image.web
  replicas = local.n

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `replicas` of service "web": expected a number, found a list
#   --> stack.hcl:14:14
#    |
# 14 |   replicas = local.n
#    |              ^^^^^^^
#   ::: stack.hcl:9:7
#    |
#  9 |   n = [1]
#    |       --- the value comes from here
