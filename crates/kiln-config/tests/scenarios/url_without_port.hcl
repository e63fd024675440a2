stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
}

service "b" {
  image = image.web
  env   = { A = service.a.url, B = worker.w.url, C = service.a.htp }
}

worker "w" {
  image = image.web
}
#: expect
# error[no-port]: service "a" has no `url`
#   --> stack.hcl:14:27
#    |
# 14 |   env   = { A = service.a.url, B = worker.w.url, C = service.a.htp }
#    |                           ^^^ a url needs a port named `http`, or one port only
#   ::: stack.hcl:8:1
#    |
#  8 | service "a" {
#    | ----------- declared here
#
# error[unknown-attribute]: worker "w" has no attribute `url`
#   --> stack.hcl:14:45
#    |
# 14 |   env   = { A = service.a.url, B = worker.w.url, C = service.a.htp }
#    |                                             ^^^
#
# error[unknown-attribute]: service "a" has no attribute `htp`
#   --> stack.hcl:14:64
#    |
# 14 |   env   = { A = service.a.url, B = worker.w.url, C = service.a.htp }
#    |                                                                ^^^
#    = help: it has: url
