stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = "web"
}
#: expect
# error[wrong-type]: `image` of service "web": expected `image.NAME`, found a string
#  --> stack.hcl:9:11
#   |
# 9 |   image = "web"
#   |           ^^^^^
#   = help: write the name without quotes: `image.NAME`
