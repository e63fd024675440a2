stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "shares" {
  image = image.web
  rollout "canary" {
    steps = ["25%", "5%", "0%", "7"]
    hold  = "0s"
  }

  port "http" {
    number = 8080
  }
}

service "both" {
  image = image.web
  rollout "canary" {
    steps         = ["5%"]
    max_surge     = 1

    step {
      hold = "10m"
    }
    step {
      shift = "5%"
      hold  = "10m"
    }
    step {}
    step {
      shift  = "5%"
      within = "1m"
    }
    step {
      analyse = "100d"
    }
    step {
      shift = "100%"
    }
    step {
      approve = "olga"
    }
  }

  port "http" {
    number = 8080
  }
}

service "all" {
  image = image.web
  rollout "canary" {
    steps = ["100%"]

    analysis {
      alpha        = 2
      inconclusive = "hope"
      latency_p100 = { worse_by = "20%" }
      latency_p9 = { worse_by = 20 }
      latency_p95  = {}
      latency_p50  = { worse_by = "0%", better_by = 3 }
      eror_rate    = { worse_by = 0.01 }
      error_rate   = { worse_by = 3 }
    }
  }

  port "http" {
    number = 8080
  }
}

service "numbers" {
  image = image.web
  rollout "canary" {
    steps = [5]

    analysis {
      latency_p99 = "20%"
    }
  }

  port "http" {
    number = 8080
  }
}

service "nothing" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]
    analysis {}
  }

  port "http" {
    number = 8080
  }
}

service "silent" {
  image = image.web
  rollout "canary" {}
}

worker "mail" {
  image = image.web
  rollout "canary" {}
}

service "rolls" {
  image = image.web
  rollout "rolling" {
    steps = ["5%"]
    hold  = "1m"
    step {
      hold = "1m"
    }
    analysis {}
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-value]: `steps`: "7" is no share like "5%", between "0%" and "100%"
#   --> stack.hcl:11:13
#    |
# 11 |     steps = ["25%", "5%", "0%", "7"]
#    |             ^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: 5% does not come after 25%
#   --> stack.hcl:11:13
#    |
# 11 |     steps = ["25%", "5%", "0%", "7"]
#    |             ^^^^^^^^^^^^^^^^^^^^^^^^
#    = help: shares only grow: a rollout that should shrink goes back
#
# error[wrong-value]: 0% does not come after 5%
#   --> stack.hcl:11:13
#    |
# 11 |     steps = ["25%", "5%", "0%", "7"]
#    |             ^^^^^^^^^^^^^^^^^^^^^^^^
#    = help: shares only grow: a rollout that should shrink goes back
#
# error[wrong-type]: `hold` of service "shares": it must be longer than nothing
#   --> stack.hcl:12:13
#    |
# 12 |     hold  = "0s"
#    |             ^^^^
#
# error[wrong-value]: `steps` is the short form of `step` blocks, which stand here as well
#   --> stack.hcl:23:21
#    |
# 23 |     steps         = ["5%"]
#    |                     ^^^^^^
#
# error[wrong-value]: a `step` has exactly one of `run`, `check`, `create`, `wait`, `mirror`, `shift`, `hold`, `analyse`, `approve`, `drain`, `retire`
#   --> stack.hcl:29:5
#    |
# 29 |     step {
#    |     ^^^^
#    = help: as in `step { run = job.migrate }`, then `step { hold = "10m" }`
#
# error[wrong-value]: a `step` has exactly one of `run`, `check`, `create`, `wait`, `mirror`, `shift`, `hold`, `analyse`, `approve`, `drain`, `retire`
#   --> stack.hcl:33:5
#    |
# 33 |     step {}
#    |     ^^^^
#    = help: as in `step { run = job.migrate }`, then `step { hold = "10m" }`
#
# error[wrong-value]: `within` is for a `step` that runs a job or waits for an approval
#   --> stack.hcl:36:16
#    |
# 36 |       within = "1m"
#    |                ^^^^
#
# error[wrong-value]: there is no `analysis` block that says what is compared
#   --> stack.hcl:39:17
#    |
# 39 |       analyse = "100d"
#    |                 ^^^^^^
#
# error[wrong-type]: `analyse` of service "both": it must be at most 336h
#   --> stack.hcl:39:17
#    |
# 39 |       analyse = "100d"
#    |                 ^^^^^^
#
# error[wrong-type]: `approve` of service "both": expected a list(string), found a string
#   --> stack.hcl:45:17
#    |
# 45 |       approve = "olga"
#    |                 ^^^^^^
#    = help: write a list, as in `["program", "argument"]`; for a shell: `["/bin/sh", "-c", "…"]`
#
# error[wrong-value]: a canary has at least one share of less than all
#   --> stack.hcl:57:13
#    |
# 57 |     steps = ["100%"]
#    |             ^^^^^^^^
#    = help: as in `steps = ["5%", "25%", "100%"]`; without one, use "blue_green"
#
# error[wrong-value]: `alpha` is a number from 0.0001 to 0.5
#   --> stack.hcl:60:22
#    |
# 60 |       alpha        = 2
#    |                      ^
#
# error[wrong-type]: `inconclusive` of service "all": there is no "hope"; there are "stop", "continue", "ask" and "extend"
#   --> stack.hcl:61:22
#    |
# 61 |       inconclusive = "hope"
#    |                      ^^^^^^
#
# error[unknown-attribute]: there is no metric `latency_p100`
#   --> stack.hcl:62:7
#    |
# 62 |       latency_p100 = { worse_by = "20%" }
#    |       ^^^^^^^^^^^^
#    = help: did you mean `latency_p50`?
#
# error[unknown-attribute]: there is no metric `latency_p9`
#   --> stack.hcl:63:7
#    |
# 63 |       latency_p9 = { worse_by = 20 }
#    |       ^^^^^^^^^^
#    = help: did you mean `latency_p95`?
#
# error[wrong-value]: `latency_p95` says how much worse is accepted: `worse_by`
#   --> stack.hcl:64:22
#    |
# 64 |       latency_p95  = {}
#    |                      ^^
#
# error[wrong-value]: `worse_by` of `latency_p50`: 0% is not between 1% and 10000%
#   --> stack.hcl:65:35
#    |
# 65 |       latency_p50  = { worse_by = "0%", better_by = 3 }
#    |                                   ^^^^
#
# error[wrong-value]: `latency_p50` has `worse_by` and nothing else, found `better_by`
#   --> stack.hcl:65:53
#    |
# 65 |       latency_p50  = { worse_by = "0%", better_by = 3 }
#    |                                                     ^
#
# error[unknown-attribute]: there is no metric `eror_rate`
#   --> stack.hcl:66:7
#    |
# 66 |       eror_rate    = { worse_by = 0.01 }
#    |       ^^^^^^^^^
#    = help: did you mean `error_rate`?
#
# error[wrong-value]: `worse_by` of `error_rate`: 3 is not between 0.00001 and 0.5
#   --> stack.hcl:67:35
#    |
# 67 |       error_rate   = { worse_by = 3 }
#    |                                   ^
#
# error[wrong-value]: `steps`: "5" is no share like "5%", between "0%" and "100%"
#   --> stack.hcl:79:13
#    |
# 79 |     steps = [5]
#    |             ^^^
#
# error[wrong-type]: `latency_p99` of service "numbers": expected an object such as `{ worse_by = "20%" }`, found a string
#   --> stack.hcl:82:21
#    |
# 82 |       latency_p99 = "20%"
#    |                     ^^^^^
#    = help: write `latency_p99 = { … }`
#
# error[missing-attribute]: nothing is compared
#   --> stack.hcl:95:5
#    |
# 95 |     analysis {}
#    |     ^^^^^^^^
#    = help: as in `error_rate = { worse_by = 0.01 }`
#
# error[wrong-value]: a canary is a share of the requests, and nothing is sent to what has no port
#    --> stack.hcl:105:11
#     |
# 105 |   rollout "canary" {}
#     |           ^^^^^^^^
#     = help: use "rolling", or declare a `port`
#
# error[wrong-value]: a canary is a share of the requests, and nothing is sent to what has no port
#    --> stack.hcl:110:11
#     |
# 110 |   rollout "canary" {}
#     |           ^^^^^^^^
#     = help: use "rolling", or declare a `port`
#
# error[wrong-value]: `steps` is for "canary" alone
#    --> stack.hcl:116:13
#     |
# 116 |     steps = ["5%"]
#     |             ^^^^^^
#     = help: use "canary", or leave it out
#
# error[wrong-value]: `hold` is for "canary" alone
#    --> stack.hcl:117:13
#     |
# 117 |     hold  = "1m"
#     |             ^^^^
#     = help: use "canary", or leave it out
#
# error[wrong-value]: `analysis` is for "canary" alone
#    --> stack.hcl:121:5
#     |
# 121 |     analysis {}
#     |     ^^^^^^^^
#     = help: use "canary", or leave it out
