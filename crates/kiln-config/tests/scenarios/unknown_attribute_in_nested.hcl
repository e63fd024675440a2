stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  health {
    http = "/"
    intervall = "1s"
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[unknown-attribute]: `health` has no attribute `intervall`
#   --> stack.hcl:12:5
#    |
# 12 |     intervall = "1s"
#    |     ^^^^^^^^^
#    = help: did you mean `interval`?
