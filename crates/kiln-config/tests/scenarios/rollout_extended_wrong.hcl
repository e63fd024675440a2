stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "alone" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      extend_limit = 2
      then         = "ask"
    }
  }

  port "http" {
    number = 8080
  }
}

service "stops" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "stop"
      then         = "ask"
    }
  }

  port "http" {
    number = 8080
  }
}

service "again" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "extend"
      then         = "extend"
    }
  }

  port "http" {
    number = 8080
  }
}

service "never" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "extend"
      extend_limit = 0
    }
  }

  port "http" {
    number = 8080
  }
}

service "dry" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "extend"
      dry_run      = true
    }
  }

  port "http" {
    number = 8080
  }
}

service "ages" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      within       = "2d"
      inconclusive = "extend"
      extend_limit = 20
    }
  }

  port "http" {
    number = 8080
  }
}

service "word" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "wait"
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: `extend_limit` is for an analysis that is extended
#   --> stack.hcl:13:22
#    |
# 13 |       extend_limit = 2
#    |                      ^
#    = help: write `inconclusive = "extend"`, or leave it out
#
# error[wrong-value]: `then` is for an analysis that is extended
#   --> stack.hcl:14:22
#    |
# 14 |       then         = "ask"
#    |                      ^^^^^
#    = help: write `inconclusive = "extend"`, or leave it out
#
# error[wrong-value]: `then` is for an analysis that is extended
#   --> stack.hcl:29:22
#    |
# 29 |       then         = "ask"
#    |                      ^^^^^
#    = help: write `inconclusive = "extend"`, or leave it out
#
# error[wrong-type]: `then` of service "again": there is no "extend"; there are "stop", "continue" and "ask"
#   --> stack.hcl:44:22
#    |
# 44 |       then         = "extend"
#    |                      ^^^^^^^^
#
# error[wrong-type]: `extend_limit` of service "never": expected a whole number from 1 to 100, found 0
#   --> stack.hcl:59:22
#    |
# 59 |       extend_limit = 0
#    |                      ^
#
# error[wrong-value]: a `dry_run` goes on whatever it finds, so there is nothing to extend it for
#   --> stack.hcl:73:22
#    |
# 73 |       inconclusive = "extend"
#    |                      ^^^^^^^^
#    = help: leave `inconclusive` out, or `dry_run`
#
# error[wrong-value]: extended 20 times it takes 1008h, more than 336h
#   --> stack.hcl:89:22
#    |
# 89 |       inconclusive = "extend"
#    |                      ^^^^^^^^
#    = help: lower `extend_limit` or `within`
#
# error[wrong-type]: `inconclusive` of service "word": there is no "wait"; there are "stop", "continue", "ask" and "extend"
#    --> stack.hcl:104:22
#     |
# 104 |       inconclusive = "wait"
#     |                      ^^^^^^
