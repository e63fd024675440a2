stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  env = {
    A = "x"
    B = [1]
    C = service.web
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `env.B` of service "web": expected a string, found a list
#   --> stack.hcl:12:9
#    |
# 12 |     B = [1]
#    |         ^^^
#
# error[wrong-type]: `env.C` of service "web": expected a string, found service "web"
#   --> stack.hcl:13:9
#    |
# 13 |     C = service.web
#    |         ^^^^^^^^^^^
#   ::: stack.hcl:8:1
#    |
#  8 | service "web" {
#    | ------------- the value comes from here
#    = help: use its address: `service.web.url`
