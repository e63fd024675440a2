stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  env = ["A=1"]

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `env` of service "web": expected a map of strings, found a list
#   --> stack.hcl:10:9
#    |
# 10 |   env = ["A=1"]
#    |         ^^^^^^^
#    = help: write `env = { … }`
