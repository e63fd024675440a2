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
service "e" {
  image = image.web
  rollout "rolling" {
    waves = ["25%", "10%", "many"]
    soak  = "0s"
  }

  port "http" {
    number = 8080
  }
}
service "f" {
  image = image.web
  rollout "rolling" {
    waves = ["100%"]
  }

  port "http" {
    number = 8080
  }
}
service "g" {
  image = image.web
  rollout "blue_green" {
    waves = ["1"]
  }

  port "http" {
    number = 8080
  }
}
service "h" {
  image = image.web
  rollout "rolling" {
    soak = "5m"
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
# error[wrong-value]: `max_surge` means nothing to "blue_green": all new instances stand beside the old ones before the one switch
#   --> stack.hcl:19:17
#    |
# 19 |     max_surge = 1
#    |                 ^
#    = help: use "rolling" or "canary", which replace some at a time
#
# error[wrong-value]: with neither `max_surge` nor `max_unavailable` a rollout can't take a step
#   --> stack.hcl:29:23
#    |
# 29 |     max_surge       = 0
#    |                       ^
#
# error[wrong-value]: `auto_promote` means nothing to "rolling": there is no one switch that somebody could let
#   --> stack.hcl:40:24
#    |
# 40 |     auto_promote     = false
#    |                        ^^^^^
#    = help: write `step { approve = [] }` where it is to wait
#
# error[wrong-value]: `min_healthy_time` is 2m, and `progress_deadline` ends the wait after 2m
#   --> stack.hcl:41:24
#    |
# 41 |     min_healthy_time = "2m"
#    |                        ^^^^
#    = help: raise `progress_deadline`: an instance must also have time to start
#
# error[wrong-value]: `waves`: "many" is neither a number of instances like "1" nor a share like "25%"
#   --> stack.hcl:51:13
#    |
# 51 |     waves = ["25%", "10%", "many"]
#    |             ^^^^^^^^^^^^^^^^^^^^^^
#    = help: as in `waves = ["1", "25%", "100%"]`
#
# error[wrong-value]: a wave of 10% does not come after one of 25%
#   --> stack.hcl:51:13
#    |
# 51 |     waves = ["25%", "10%", "many"]
#    |             ^^^^^^^^^^^^^^^^^^^^^^
#    = help: each says how many have moved after it: they only grow
#
# error[wrong-type]: `soak` of service "e": it must be longer than nothing
#   --> stack.hcl:52:13
#    |
# 52 |     soak  = "0s"
#    |             ^^^^
#
# error[wrong-value]: there is at least one wave of less than all
#   --> stack.hcl:62:13
#    |
# 62 |     waves = ["100%"]
#    |             ^^^^^^^^
#    = help: the last wave is always that of all the others
#
# error[wrong-value]: `waves` is for "rolling" alone
#   --> stack.hcl:72:13
#    |
# 72 |     waves = ["1"]
#    |             ^^^^^
#    = help: use "rolling", or leave it out
#
# error[wrong-value]: `soak` is between `waves`, and there are none
#   --> stack.hcl:82:12
#    |
# 82 |     soak = "5m"
#    |            ^^^^
#    = help: as in `waves = ["1", "25%"]`
