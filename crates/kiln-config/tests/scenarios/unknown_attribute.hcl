stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  replcas = 2

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-attribute]: `service` has no attribute `replcas`
#   --> stack.hcl:10:3
#    |
# 10 |   replcas = 2
#    |   ^^^^^^^
#    = help: did you mean `replicas`?
