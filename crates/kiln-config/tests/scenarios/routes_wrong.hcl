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
  listen = "8080"
  to     = service.web.http
}

route "b" {
  listen = ":0"
  host   = "http://x"
  path   = "api"
  to     = service.web.htp
}

route "c" {
  listen = ":80"
  to     = image.web
}

route "d" {
  listen = ":81"
  host   = "*.x"
  path   = "/a b"
  to     = "web"
}
#: expect
# error[wrong-type]: `listen` of route "a": write ":8080"
#   --> stack.hcl:17:12
#    |
# 17 |   listen = "8080"
#    |            ^^^^^^
#
# error[wrong-type]: `listen` of route "b": port 0 is no port to be reached at
#   --> stack.hcl:22:12
#    |
# 22 |   listen = ":0"
#    |            ^^^^
#
# error[wrong-type]: `host` of route "b": "http://x" holds more than a host name; the port stands in `listen`
#   --> stack.hcl:23:12
#    |
# 23 |   host   = "http://x"
#    |            ^^^^^^^^^^
#
# error[wrong-type]: `path` of route "b": "api" must begin with `/`
#   --> stack.hcl:24:12
#    |
# 24 |   path   = "api"
#    |            ^^^^^
#
# error[unknown-attribute]: service "web" has no attribute `htp`
#   --> stack.hcl:25:24
#    |
# 25 |   to     = service.web.htp
#    |                        ^^^
#    = help: did you mean `http`?
#
# error[wrong-type]: `to` of route "c": expected `service.NAME.PORT`, found image "web"
#   --> stack.hcl:30:12
#    |
# 30 |   to     = image.web
#    |            ^^^^^^^^^
#   ::: stack.hcl:3:1
#    |
#  3 | image "web" {
#    | ----------- the value comes from here
#    = help: write `service.NAME.PORT`
#
# error[wrong-type]: `host` of route "d": a host with `*` is not supported by this version; leave `host` out to answer for any
#   --> stack.hcl:35:12
#    |
# 35 |   host   = "*.x"
#    |            ^^^^^
#
# error[wrong-type]: `path` of route "d": "/a b" is no path prefix: it holds a blank, `?`, `#`, `*` or another sign
#   --> stack.hcl:36:12
#    |
# 36 |   path   = "/a b"
#    |            ^^^^^^
#
# error[wrong-type]: `to` of route "d": expected `service.NAME.PORT`, found a string
#   --> stack.hcl:37:12
#    |
# 37 |   to     = "web"
#    |            ^^^^^
#    = help: write the name without quotes: `service.NAME.PORT`
