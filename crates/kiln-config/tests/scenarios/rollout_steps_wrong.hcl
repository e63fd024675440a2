stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

job "circle" {
  image      = image.web
  depends_on = [service.round]
}

service "round" {
  image = image.web
  rollout "blue_green" {
    step { run = job.circle }
  }
}

service "order" {
  image = image.web
  rollout "blue_green" {
    step { shift = "100%" }
    step { create = true }
    step { drain = true }
    step { shift = "100%" }
    step { drain = true }
  }
}

service "shares" {
  image = image.web
  rollout "rolling" {
    step { shift = "5%" }
    step { analyse = "5m" }
    step { shift = "200%" }
  }
}

service "names" {
  image = image.web
  rollout "blue_green" {
    step { run = job.nobody }
    step { run = "circle" }
    step { run = service.order }
    step { create = false }
    step { wait = "ready" }
    step {
      hold   = "1m"
      within = "1m"
    }
    step {
      run    = job.circle
      within = "0s"
    }
    step { sleep = "1m" }
    step {
      check {
        timeout = "1m"
      }
    }
    step {
      check {
        exec = []
      }
      hold = "1m"
    }
    step {
      check {
        exec = "true"
      }
    }
  }
}

service "away" {
  image = image.web
  rollout "canary" {
    step { analyse = "1m" }
    step { shift = "5%" }
    step { create = true }
    step { shift = "100%" }
    step { analyse = "1m" }
    step { shift = "50%" }

    analysis {
      error_rate = { worse_by = 0.01 }
    }
  }

  port "http" {
    number = 8080
  }
}

job "checked-check-1" {
  image = image.web
}

service "checked" {
  image = image.web
  rollout "blue_green" {
    step {
      check {
        exec = ["true"]
      }
    }
  }
}

worker "mail" {
  image = image.web
  rollout "stop_then_start" {
    step { shift = "100%" }
    step { create = true }
    step { retire = true }
  }
}
#: expect
# error[cycle]: "circle" depends on "round", which a step of "round" runs before it is there
#   --> stack.hcl:13:1
#    |
# 13 | service "round" {
#    | ^^^^^^^^^^^^^^^
#   ::: stack.hcl:8:1
#    |
#  8 | job "circle" {
#    | ------------ the job
#    = help: the `depends_on` must go, or the step comes after the new instances have the requests
#
# error[wrong-value]: `create` comes too late: what stands above comes after it
#   --> stack.hcl:24:21
#    |
# 24 |     step { create = true }
#    |                     ^^^^
#    = help: the order is create, wait, shift, drain, retire; what is not written is done where it has to be
#
# error[wrong-value]: `shift` comes too late: what stands above comes after it
#   --> stack.hcl:26:20
#    |
# 26 |     step { shift = "100%" }
#    |                    ^^^^^^
#    = help: the order is create, wait, shift, drain, retire; what is not written is done where it has to be
#
# error[wrong-value]: `drain` comes too late: what stands above comes after it
#   --> stack.hcl:27:20
#    |
# 27 |     step { drain = true }
#    |                    ^^^^
#    = help: the order is create, wait, shift, drain, retire; what is not written is done where it has to be
#
# error[wrong-value]: "rolling" moves all requests of an instance at once
#   --> stack.hcl:34:20
#    |
# 34 |     step { shift = "5%" }
#    |                    ^^^^
#    = help: write `shift = "100%"`, or use "canary"
#
# error[wrong-value]: "rolling" has no share of the requests to analyse
#   --> stack.hcl:35:22
#    |
# 35 |     step { analyse = "5m" }
#    |                      ^^^^
#    = help: use "canary", whose new instances get a share first
#
# error[wrong-type]: `shift` of service "shares": "200%" is no share like "5%", between "0%" and "100%"
#   --> stack.hcl:36:20
#    |
# 36 |     step { shift = "200%" }
#    |                    ^^^^^^
#
# error[unknown-name]: there is no `job.nobody`
#   --> stack.hcl:43:22
#    |
# 43 |     step { run = job.nobody }
#    |                      ^^^^^^
#    = help: declared are: checked-check-1, circle
#
# error[wrong-type]: `run` of service "names": expected `job.NAME`, found a string
#   --> stack.hcl:44:18
#    |
# 44 |     step { run = "circle" }
#    |                  ^^^^^^^^
#    = help: write the name without quotes: `job.NAME`
#
# error[wrong-type]: `run` of service "names": expected `job.NAME`, found service "order"
#   --> stack.hcl:45:18
#    |
# 45 |     step { run = service.order }
#    |                  ^^^^^^^^^^^^^
#   ::: stack.hcl:20:1
#    |
# 20 | service "order" {
#    | --------------- the value comes from here
#    = help: write `job.NAME`
#
# error[wrong-value]: `create` is done in any case: leave the step out
#   --> stack.hcl:46:21
#    |
# 46 |     step { create = false }
#    |                     ^^^^^
#
# error[wrong-type]: `wait` of service "names": there is no "ready"; it waits until they are "healthy"
#   --> stack.hcl:47:19
#    |
# 47 |     step { wait = "ready" }
#    |                   ^^^^^^^
#
# error[wrong-value]: `within` is for a `step` that runs a job or waits for an approval
#   --> stack.hcl:50:16
#    |
# 50 |       within = "1m"
#    |                ^^^^
#
# error[wrong-type]: `within` of service "names": it must be longer than nothing
#   --> stack.hcl:54:16
#    |
# 54 |       within = "0s"
#    |                ^^^^
#
# error[wrong-value]: a `step` has exactly one of `run`, `check`, `create`, `wait`, `mirror`, `shift`, `hold`, `analyse`, `approve`, `drain`, `retire`
#   --> stack.hcl:56:5
#    |
# 56 |     step { sleep = "1m" }
#    |     ^^^^
#    = help: as in `step { run = job.migrate }`, then `step { hold = "10m" }`
#
# error[unknown-attribute]: `step` has no attribute `sleep`
#   --> stack.hcl:56:12
#    |
# 56 |     step { sleep = "1m" }
#    |            ^^^^^
#
# error[wrong-value]: a `check` asks nothing
#   --> stack.hcl:58:7
#    |
# 58 |       check {
#    |       ^^^^^
#    = help: as in `exec = ["/app/smoke"]`, or `http { path = "/ready" }`
#
# error[wrong-value]: a `step` has exactly one of `run`, `check`, `create`, `wait`, `mirror`, `shift`, `hold`, `analyse`, `approve`, `drain`, `retire`
#   --> stack.hcl:62:5
#    |
# 62 |     step {
#    |     ^^^^
#    = help: as in `step { run = job.migrate }`, then `step { hold = "10m" }`
#
# error[wrong-type]: `exec` of service "names": expected a list(string), found a string
#   --> stack.hcl:70:16
#    |
# 70 |         exec = "true"
#    |                ^^^^^^
#    = help: write a list, as in `["program", "argument"]`; for a shell: `["/bin/sh", "-c", "…"]`
#
# error[wrong-value]: there is nothing to analyse: the requests are not split here
#   --> stack.hcl:79:22
#    |
# 79 |     step { analyse = "1m" }
#    |                      ^^^^
#    = help: put it after a `shift` of less than "100%"
#
# error[wrong-value]: `create` comes too late: what stands above comes after it
#   --> stack.hcl:81:21
#    |
# 81 |     step { create = true }
#    |                     ^^^^
#    = help: the order is create, wait, shift, drain, retire; what is not written is done where it has to be
#
# error[wrong-value]: there is nothing to analyse: the requests are not split here
#   --> stack.hcl:83:22
#    |
# 83 |     step { analyse = "1m" }
#    |                      ^^^^
#    = help: put it after a `shift` of less than "100%"
#
# error[wrong-value]: 50% does not come after 100%
#   --> stack.hcl:84:20
#    |
# 84 |     step { shift = "50%" }
#    |                    ^^^^^
#    = help: shares only grow: a rollout that should shrink goes back
#
# error[duplicate]: this check is the job "checked-check-1", and there is a block of that name
#    --> stack.hcl:104:7
#     |
# 104 |       check {
#     |       ^^^^^
#    ::: stack.hcl:96:1
#     |
#  96 | job "checked-check-1" {
#     | --------------------- the other one
#
# error[wrong-value]: with this "stop_then_start" new instances have the requests once they are healthy
#    --> stack.hcl:114:20
#     |
# 114 |     step { shift = "100%" }
#     |                    ^^^^^^
#     = help: leave the step out
#
# error[wrong-value]: `retire` comes too late: what stands above comes after it
#    --> stack.hcl:116:21
#     |
# 116 |     step { retire = true }
#     |                     ^^^^
#     = help: the order is drain, retire, create, wait; what is not written is done where it has to be
