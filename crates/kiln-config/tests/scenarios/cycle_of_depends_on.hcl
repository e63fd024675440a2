stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  depends_on = [service.b]

  port "http" {
    number = 8080
  }
}

service "b" {
  image = image.web
  depends_on = [service.a]

  port "http" {
    number = 8080
  }
}
#: expect
# error[cycle]: "a" depends on itself: a -> b -> a
#   --> stack.hcl:8:1
#    |
#  8 | service "a" {
#    | ^^^^^^^^^^^
#   ::: stack.hcl:17:1
#    |
# 17 | service "b" {
#    | ----------- on the way
#    = help: one `depends_on` must go
