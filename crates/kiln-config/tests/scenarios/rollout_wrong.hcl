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
service "d" {
  image = image.web
  rollout "rolling" {
    auto_promote     = false
    min_healthy_time = "2m"
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
#
# error[wrong-value]: `auto_promote` is for "blue_green" alone
#   --> stack.hcl:40:24
#    |
# 40 |     auto_promote     = false
#    |                        ^^^^^
#
# error[wrong-value]: `min_healthy_time` is 2m, and `progress_deadline` ends the wait after 2m
#   --> stack.hcl:41:24
#    |
# 41 |     min_healthy_time = "2m"
#    |                        ^^^^
#    = help: raise `progress_deadline`: an instance must also have time to start
