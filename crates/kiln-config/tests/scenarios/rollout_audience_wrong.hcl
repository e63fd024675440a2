stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    sticky {
      cookie  = "kiln web"
      max_age = "500d"
    }
    match {
      equals = "next"
    }
    match {
      header = "X-Version"
      equals = "next"
      prefix = "n"
    }
    match {
      header = ""
      to     = "baseline"
    }
    mirror {
      share = "0%"
    }
  }

  port "http" {
    number = 8080
  }
}

service "both" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    sticky {
      header  = "X-User"
      address = true
      max_age = "1h"
    }
  }

  port "http" {
    number = 8080
  }
}

service "other" {
  image = image.web
  rollout "rolling" {
    sticky {
      address = true
    }
    match {
      header = "X-Version"
    }
    mirror {}
  }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: `cookie` of service "web": a name has 1 to 64 letters, digits and characters such as `-` and `_`
#   --> stack.hcl:14:17
#    |
# 14 |       cookie  = "kiln web"
#    |                 ^^^^^^^^^^
#
# error[wrong-type]: `max_age` of service "web": no browser keeps a cookie longer than 400 days
#   --> stack.hcl:15:17
#    |
# 15 |       max_age = "500d"
#    |                 ^^^^^^
#
# error[wrong-value]: a `match` says which `header` it looks at
#   --> stack.hcl:17:5
#    |
# 17 |     match {
#    |     ^^^^^
#    = help: as in `header = "X-Version"`
#
# error[wrong-value]: a header's value is compared with `equals` or with `prefix`, not with both
#   --> stack.hcl:20:5
#    |
# 20 |     match {
#    |     ^^^^^
#
# error[wrong-type]: `header` of service "web": a name has 1 to 64 letters, digits and characters such as `-` and `_`
#   --> stack.hcl:26:16
#    |
# 26 |       header = ""
#    |                ^^
#
# error[wrong-type]: `to` of service "web": there is no "baseline"; there are "canary" and "stable"
#   --> stack.hcl:27:16
#    |
# 27 |       to     = "baseline"
#    |                ^^^^^^^^^^
#
# error[wrong-type]: `share` of service "web": a share must be more than nothing
#   --> stack.hcl:30:15
#    |
# 30 |       share = "0%"
#    |               ^^^^
#
# error[wrong-value]: `max_age` is for a `cookie`
#   --> stack.hcl:44:5
#    |
# 44 |     sticky {
#    |     ^^^^^^
#
# error[wrong-value]: one thing stands for a user: `cookie`, `header` or `address = true`
#   --> stack.hcl:44:5
#    |
# 44 |     sticky {
#    |     ^^^^^^
#    = help: as in `sticky { cookie = "kiln-web" }`
#
# error[wrong-value]: `sticky` is for "canary" alone
#   --> stack.hcl:59:5
#    |
# 59 |     sticky {
#    |     ^^^^^^
#    = help: use "canary", or leave it out
#
# error[wrong-value]: `match` is for "canary" alone
#   --> stack.hcl:62:5
#    |
# 62 |     match {
#    |     ^^^^^
#    = help: use "canary", or leave it out
#
# error[wrong-value]: `mirror` is for "canary" alone
#   --> stack.hcl:65:5
#    |
# 65 |     mirror {}
#    |     ^^^^^^
#    = help: use "canary", or leave it out
