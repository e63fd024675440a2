stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  replicas = -1

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `replicas` of service "web": expected a whole number from 0 to 10000, found -1
#   --> stack.hcl:10:14
#    |
# 10 |   replicas = -1
#    |              ^^
