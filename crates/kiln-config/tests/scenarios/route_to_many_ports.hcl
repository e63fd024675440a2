stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  port "a" {
    number = 1
  }
  port "b" {
    number = 2
  }
}

route "r" {
  listen = ":80"
  to     = service.web
}
#: expect
# error[no-port]: service "web" has no port `http`, nor one port only
#   --> stack.hcl:20:12
#    |
# 20 |   to     = service.web
#    |            ^^^^^^^^^^^
#    = help: say which: `service.web.a`; it has a, b
