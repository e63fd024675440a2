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

#: hcl more.hcl
service "web" {
  image = image.web

  port "http" {
    number = 8080
  }
}
#: expect
# error[duplicate]: `service "web"` is declared twice
#  --> stack.hcl:8:9
#   |
# 8 | service "web" {
#   |         ^^^^^ again here
#  ::: more.hcl:1:1
#   |
# 1 | service "web" {
#   | ------------- first here
