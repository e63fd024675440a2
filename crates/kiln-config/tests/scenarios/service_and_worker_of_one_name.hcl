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

worker "web" {
  image = image.web
}
#: expect
# error[duplicate]: `worker "web"` is declared twice
#   --> stack.hcl:16:8
#    |
# 16 | worker "web" {
#    |        ^^^^^ again here
#   ::: stack.hcl:8:1
#    |
#  8 | service "web" {
#    | ------------- first here
