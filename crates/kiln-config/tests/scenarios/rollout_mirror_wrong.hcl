stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "switched" {
  image = image.web
  rollout "blue_green" {
    step { mirror = "10%" }
    step { create = true }
    step { mirror = "10%" }
    step { wait = "healthy" }
    step { mirror = "0%" }
    step {
      mirror = "0%"
      for    = "1m"
    }
    step { mirror = "200%" }
    step {
      mirror = "10%"
      for    = "0s"
    }
    step {
      hold = "1m"
      for  = "1m"
    }
    step { shift = "100%" }
    step { mirror = "10%" }
  }

  port "http" {
    number = 8080
  }
}

service "shared" {
  image = image.web
  rollout "canary" {
    step { shift = "5%" }
    step {
      mirror = "10%"
      for    = "1m"
    }
  }

  port "http" {
    number = 8080
  }
}

service "rolled" {
  image = image.web
  rollout "rolling" {
    step { mirror = "10%" }
  }

  port "http" {
    number = 8080
  }
}

worker "mail" {
  image = image.web
  rollout "blue_green" {
    step { mirror = "10%" }
  }
}
#: expect
# error[wrong-value]: no new instance is healthy here that could get copies
#   --> stack.hcl:11:21
#    |
# 11 |     step { mirror = "10%" }
#    |                     ^^^^^
#    = help: put it after `step { wait = "healthy" }`
#
# error[wrong-value]: no new instance is healthy here that could get copies
#   --> stack.hcl:13:21
#    |
# 13 |     step { mirror = "10%" }
#    |                     ^^^^^
#    = help: put it after `step { wait = "healthy" }`
#
# error[wrong-value]: nothing is mirrored here that could end
#   --> stack.hcl:15:21
#    |
# 15 |     step { mirror = "0%" }
#    |                     ^^^^
#    = help: as in `step { mirror = "10%" }` further up; what has a `for` ends by itself
#
# error[wrong-value]: nothing is mirrored for that long
#   --> stack.hcl:18:16
#    |
# 18 |       for    = "1m"
#    |                ^^^^
#    = help: leave `for` out
#
# error[wrong-type]: `mirror` of service "switched": "200%" is no share like "5%", between "0%" and "100%"
#   --> stack.hcl:20:21
#    |
# 20 |     step { mirror = "200%" }
#    |                     ^^^^^^
#
# error[wrong-type]: `for` of service "switched": it must be longer than nothing
#   --> stack.hcl:23:16
#    |
# 23 |       for    = "0s"
#    |                ^^^^
#
# error[wrong-value]: `for` is for a `step` that mirrors requests
#   --> stack.hcl:27:14
#    |
# 27 |       for  = "1m"
#    |              ^^^^
#    = help: a step that waits is `hold = "5m"`
#
# error[wrong-value]: the new instances have requests of their own here
#   --> stack.hcl:30:21
#    |
# 30 |     step { mirror = "10%" }
#    |                     ^^^^^
#    = help: put it before the first `shift`; a canary's `mirror` block copies beside its shares
#
# error[wrong-value]: the new instances have requests of their own here
#   --> stack.hcl:43:16
#    |
# 43 |       mirror = "10%"
#    |                ^^^^^
#    = help: put it before the first `shift`; a canary's `mirror` block copies beside its shares
#
# error[wrong-value]: with "rolling" no new instance stands beside the old ones without requests
#   --> stack.hcl:56:21
#    |
# 56 |     step { mirror = "10%" }
#    |                     ^^^^^
#    = help: use "blue_green" or "canary"
#
# error[wrong-value]: no requests come to mail, which has no port
#   --> stack.hcl:67:21
#    |
# 67 |     step { mirror = "10%" }
#    |                     ^^^^^
#    = help: leave the step out
