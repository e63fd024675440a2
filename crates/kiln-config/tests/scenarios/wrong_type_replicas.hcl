stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  replicas = "many"

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `replicas` of service "web": expected a number, found a string
#   --> stack.hcl:10:14
#    |
# 10 |   replicas = "many"
#    |              ^^^^^^
