stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web

  port "http" {
    number = 8080
  }
}

route "a" {
  listen = ":80"
  host   = "a.example"
  path   = "/x/"
  to     = service.web.http
}

route "b" {
  listen = "0.0.0.0:80"
  host   = "A.Example."
  path   = "/x"
  to     = service.web
}
#: expect
# error[duplicate]: route "b" answers for the same requests as route "a"
#   --> stack.hcl:23:1
#    |
# 23 | route "b" {
#    | ^^^^^^^^^
#   ::: stack.hcl:16:1
#    |
# 16 | route "a" {
#    | --------- the other one
