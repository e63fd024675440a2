stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "fits" {
  image    = image.web
  replicas = 8
  rollout "canary" {
    max_surge = 4
    steps     = ["5%", "25%"]

    analysis {
      error_rate = { worse_by = 0.01 }
    }
  }

  port "http" {
    number = 8080
  }
}

service "small" {
  image    = image.web
  replicas = 8
  rollout "canary" {
    max_surge = 3
    steps     = ["5%", "25%"]

    analysis {
      error_rate = { worse_by = 0.01 }
    }
  }

  port "http" {
    number = 8080
  }
}

service "none" {
  image = image.web
  rollout "canary" {
    max_surge       = 0
    max_unavailable = 1
    auto_promote    = false
  }

  port "http" {
    number = 8080
  }
}

service "held" {
  image    = image.web
  replicas = 4
  rollout "canary" {
    max_surge = 1
    steps     = ["50%"]
  }

  port "http" {
    number = 8080
  }
}

worker "mail" {
  image = image.web
  rollout "stop_then_start" {
    max_surge       = 1
    max_unavailable = 1
    auto_promote    = false
  }
}

service "switched" {
  image = image.web
  rollout "blue_green" {
    max_surge       = 1
    max_unavailable = 1
  }

  port "http" {
    number = 8080
  }
}

worker "rolled" {
  image = image.web
  rollout "rolling" {
    auto_promote = false
  }
}
#: expect
# error[wrong-value]: a share of 25%, with as many for the baseline, takes 4 instances more than 8, and `max_surge` is 3
#   --> stack.hcl:29:17
#    |
# 29 |     max_surge = 3
#    |                 ^
#    = help: write `max_surge = 4` or more, or end with a smaller share
#
# error[wrong-type]: `max_surge` of service "none": expected a whole number from 1 to 10000, found 0
#   --> stack.hcl:45:23
#    |
# 45 |     max_surge       = 0
#    |                       ^
#
# error[wrong-value]: `max_unavailable` means nothing to "canary": the old instances stay until the new ones have the requests, so none is missing
#   --> stack.hcl:46:23
#    |
# 46 |     max_unavailable = 1
#    |                       ^
#    = help: leave it out, or use "rolling" with `max_surge = 0`
#
# error[wrong-value]: `auto_promote` means nothing to "canary": it has a step for each share
#   --> stack.hcl:47:23
#    |
# 47 |     auto_promote    = false
#    |                       ^^^^^
#    = help: write `step { approve = [] }` after a `step { shift = "5%" }`
#
# error[wrong-value]: a share of 50% takes 2 instances more than 4, and `max_surge` is 1
#   --> stack.hcl:59:17
#    |
# 59 |     max_surge = 1
#    |                 ^
#    = help: write `max_surge = 2` or more, or end with a smaller share
#
# error[wrong-value]: `max_surge` means nothing to "stop_then_start": the old instances are gone before new ones start, so there are never more
#   --> stack.hcl:71:23
#    |
# 71 |     max_surge       = 1
#    |                       ^
#    = help: leave it out, or use "rolling"
#
# error[wrong-value]: `max_unavailable` means nothing to "stop_then_start": all instances are away until the new ones have started
#   --> stack.hcl:72:23
#    |
# 72 |     max_unavailable = 1
#    |                       ^
#    = help: use "rolling" with `max_surge = 0`, which takes some at a time
#
# error[wrong-value]: `auto_promote` means nothing to "stop_then_start": there is no one switch that somebody could let
#   --> stack.hcl:73:23
#    |
# 73 |     auto_promote    = false
#    |                       ^^^^^
#    = help: write `step { approve = [] }` where it is to wait
#
# error[wrong-value]: `max_surge` means nothing to "blue_green": all new instances stand beside the old ones before the one switch
#   --> stack.hcl:80:23
#    |
# 80 |     max_surge       = 1
#    |                       ^
#    = help: use "rolling" or "canary", which replace some at a time
#
# error[wrong-value]: `max_unavailable` means nothing to "blue_green": the old instances stay until the new ones have the requests, so none is missing
#   --> stack.hcl:81:23
#    |
# 81 |     max_unavailable = 1
#    |                       ^
#    = help: leave it out, or use "rolling" with `max_surge = 0`
#
# error[wrong-value]: `auto_promote` means nothing to "rolling": there is no one switch that somebody could let
#   --> stack.hcl:92:20
#    |
# 92 |     auto_promote = false
#    |                    ^^^^^
#    = help: write `step { approve = [] }` where it is to wait
