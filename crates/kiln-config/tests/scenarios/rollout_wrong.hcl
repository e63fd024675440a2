stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  rollout "blue-green" {}

  port "http" {
    number = 8080
  }
}
service "b" {
  image = image.web
  rollout "blue_green" {
    max_surge = 1
  }

  port "http" {
    number = 8080
  }
}
service "c" {
  image = image.web
  rollout "rolling" {
    max_surge       = 0
    max_unavailable = 0
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: there is no strategy "blue-green"
#   --> stack.hcl:10:11
#    |
# 10 |   rollout "blue-green" {}
#    |           ^^^^^^^^^^^^
#    = help: did you mean `blue_green`?
#
# error[wrong-value]: `max_surge` is for "rolling" alone
#   --> stack.hcl:19:17
#    |
# 19 |     max_surge = 1
#    |                 ^
#
# error[wrong-value]: with neither `max_surge` nor `max_unavailable` a rollout can't take a step
#   --> stack.hcl:29:23
#    |
# 29 |     max_surge       = 0
#    |                       ^
