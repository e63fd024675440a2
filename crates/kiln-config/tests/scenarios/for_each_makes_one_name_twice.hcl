stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  for_each = toset(["b"])
  image    = image.web
}

service "a-b" {
  image = image.web
}
#: expect
# error[duplicate]: two blocks make the service "a-b"
#   --> stack.hcl:13:1
#    |
# 13 | service "a-b" {
#    | ^^^^^^^^^^^^^
#   ::: stack.hcl:8:1
#    |
#  8 | service "a" {
#    | ----------- the other one
