stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web

  port "http" {
    number = 8080
  }
}

service "b" {
  image = service.a
}
#: expect
# error[wrong-type]: `image` of service "b": expected `image.NAME`, found service "a"
#   --> stack.hcl:17:11
#    |
# 17 |   image = service.a
#    |           ^^^^^^^^^
#   ::: stack.hcl:8:1
#    |
#  8 | service "a" {
#    | ----------- the value comes from here
#    = help: write `image.NAME`
