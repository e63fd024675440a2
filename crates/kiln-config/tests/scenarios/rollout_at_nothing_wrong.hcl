stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "nobody" {
  image = image.web
  rollout "canary" {
    steps = ["0%", "10%"]
  }

  port "http" {
    number = 8080
  }
}

service "stable" {
  image = image.web
  rollout "canary" {
    step { shift = "0%" }
    step { hold = "1m" }
    match {
      header = "X-Version"
      to     = "stable"
    }
  }

  port "http" {
    number = 8080
  }
}

service "notime" {
  image = image.web
  rollout "canary" {
    step { shift = "0%" }
    step { shift = "10%" }
    match { header = "X-Version" }
  }

  port "http" {
    number = 8080
  }
}

service "unheld" {
  image = image.web
  rollout "canary" {
    steps = ["0%", "10%"]
    match { header = "X-Version" }
    analysis { error_rate = { worse_by = 0.01 } }
  }

  port "http" {
    number = 8080
  }
}

service "compared" {
  image = image.web
  rollout "canary" {
    step { shift = "0%" }
    step { analyse = "10m" }
    step { shift = "10%" }
    step { shift = "0%" }
    match { header = "X-Version" }
    analysis { error_rate = { worse_by = 0.01 } }
  }

  port "http" {
    number = 8080
  }
}

service "switched" {
  image = image.web
  rollout "blue_green" {
    step { shift = "0%" }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: with a share of 0% nobody sees the canary
#   --> stack.hcl:11:13
#    |
# 11 |     steps = ["0%", "10%"]
#    |             ^^^^^^^^^^^^^
#    = help: add `match { header = "X-Version" }` for testers, or begin with a share such as "1%"
#
# error[wrong-value]: with a share of 0% nobody sees the canary
#   --> stack.hcl:22:20
#    |
# 22 |     step { shift = "0%" }
#    |                    ^^^^
#    = help: add `match { header = "X-Version" }` for testers, or begin with a share such as "1%"
#
# error[wrong-value]: nothing holds the share of 0%, so testers would see the canary for no time alone
#   --> stack.hcl:38:20
#    |
# 38 |     step { shift = "0%" }
#    |                    ^^^^
#    = help: write `step { hold = "30m" }` or `step { approve = [] }` after it
#
# error[wrong-value]: nothing holds the share of 0%, so testers would see the canary for no time alone
#   --> stack.hcl:51:13
#    |
# 51 |     steps = ["0%", "10%"]
#    |             ^^^^^^^^^^^^^
#    = help: write `hold = "30m"`: an analysis does not count their requests
#
# error[wrong-value]: at a share of 0% only testers come, and they are no random sample to compare
#   --> stack.hcl:65:22
#    |
# 65 |     step { analyse = "10m" }
#    |                      ^^^^^
#    = help: write `hold` or `approve` here, and `analyse` after the next `shift`
#
# error[wrong-value]: 0% does not come after 10%
#   --> stack.hcl:67:20
#    |
# 67 |     step { shift = "0%" }
#    |                    ^^^^
#    = help: shares only grow: a rollout that should shrink goes back
#
# error[wrong-value]: "blue_green" moves all requests of an instance at once
#   --> stack.hcl:80:20
#    |
# 80 |     step { shift = "0%" }
#    |                    ^^^^
#    = help: write `shift = "100%"`, or use "canary"
