stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    steps = ["5%", "100%"]

    analysis {
      error_rate = { worse_by = 0.01 }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[not-supported]: rollout "canary" is not supported by this version
#   --> stack.hcl:10:11
#    |
# 10 |   rollout "canary" {
#    |           ^^^^^^^^
#    = help: use "blue_green", "rolling" or "stop_then_start"
