stack "shop" {}

environment "test" {
  promote {
    soak = "1h"
  }
}

environment "prod" {
  promote {
    from = "prod"
    soak = "90d"

    window {
      days = ["monday", "mo"]
      from = "16:00"
      to   = "09:00"
    }

    window {
      from = "9:00"
      to   = "24:01"
    }

    freeze {
      from   = "2026-12-20"
      to     = "2027-01-02T00:00:00Z"
      reason = "x"
    }

    freeze {
      from = "2027-01-02T00:00:00Z"
      to   = "2027-01-01T00:00:00Z"
    }
  }
}
#: expect
# error[missing-attribute]: `soak` is how long a release must have served in the environment `from`, which is missing
#  --> stack.hcl:5:12
#   |
# 5 |     soak = "1h"
#   |            ^^^^
#
# error[wrong-type]: `from` of environment "prod": a release can't come from the environment that it comes into
#   --> stack.hcl:11:12
#    |
# 11 |     from = "prod"
#    |            ^^^^^^
#
# error[wrong-type]: `soak` of environment "prod": it must be at most 720h
#   --> stack.hcl:12:12
#    |
# 12 |     soak = "90d"
#    |            ^^^^^
#
# error[wrong-value]: "monday" is no day of the week
#   --> stack.hcl:15:14
#    |
# 15 |       days = ["monday", "mo"]
#    |              ^^^^^^^^^^^^^^^^
#    = help: there are "mon", "tue", "wed", "thu", "fri", "sat", "sun"
#
# error[wrong-value]: "mo" is no day of the week
#   --> stack.hcl:15:14
#    |
# 15 |       days = ["monday", "mo"]
#    |              ^^^^^^^^^^^^^^^^
#    = help: did you mean `mon`?
#
# error[wrong-value]: a window ends on the day on which it begins, and after that
#   --> stack.hcl:17:14
#    |
# 17 |       to   = "09:00"
#    |              ^^^^^^^
#    = help: write two windows for hours around midnight; the end of a day is "24:00"
#
# error[wrong-type]: `from` of environment "prod": "9:00" is no time of the day, such as "09:00"
#   --> stack.hcl:21:14
#    |
# 21 |       from = "9:00"
#    |              ^^^^^^
#
# error[wrong-type]: `to` of environment "prod": "24:01" is no time of the day, such as "09:00"
#   --> stack.hcl:22:14
#    |
# 22 |       to   = "24:01"
#    |              ^^^^^^^
#
# error[wrong-type]: `from` of environment "prod": "2026-12-20" is no moment, such as "2026-12-20T00:00:00Z"
#   --> stack.hcl:26:16
#    |
# 26 |       from   = "2026-12-20"
#    |                ^^^^^^^^^^^^
#
# error[missing-attribute]: `freeze` needs the attribute `reason`
#   --> stack.hcl:31:5
#    |
# 31 |     freeze {
#    |     ^^^^^^
#    = help: reason = … (string): Why: whoever is refused is told.
#
# error[wrong-value]: a freeze ends after it begins
#   --> stack.hcl:33:14
#    |
# 33 |       to   = "2027-01-01T00:00:00Z"
#    |              ^^^^^^^^^^^^^^^^^^^^^^
