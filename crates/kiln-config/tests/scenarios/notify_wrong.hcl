stack "shop" {}

secret "hook" {
  file = "secrets/hook"
}

notify "a b" {
  url    = "chat.example"
  events = ["complete"]
  secret = "hush"
}

notify "none" {
  url    = "https://user:password@chat.example/"
  events = []
  secret = secret.hok
}

notify "query" {
  url    = "https://chat.example/?token=1"
  secret = notify.none
}

notify "query" {}
#: expect
# error[wrong-value]: "a b" is no name of a webhook: 1 to 64 letters, digits, `_` and `-`
#  --> stack.hcl:7:8
#   |
# 7 | notify "a b" {
#   |        ^^^^^
#
# error[wrong-type]: `url` of notify "a b": it begins with `http://` or `https://`
#  --> stack.hcl:8:12
#   |
# 8 |   url    = "chat.example"
#   |            ^^^^^^^^^^^^^^
#
# error[wrong-value]: "complete" is nothing that happens to a rollout
#  --> stack.hcl:9:12
#   |
# 9 |   events = ["complete"]
#   |            ^^^^^^^^^^^^
#   = help: did you mean `completed`?
#
# error[wrong-type]: `secret` of notify "a b": expected `secret.NAME`, found a string
#   --> stack.hcl:10:12
#    |
# 10 |   secret = "hush"
#    |            ^^^^^^
#    = help: write the name without quotes: `secret.NAME`
#
# error[wrong-type]: `url` of notify "none": a user and a password would be stored in clear
#   --> stack.hcl:14:12
#    |
# 14 |   url    = "https://user:password@chat.example/"
#    |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[wrong-value]: a webhook that is told of nothing
#   --> stack.hcl:15:12
#    |
# 15 |   events = []
#    |            ^^
#    = help: leave `events` out to be told of all
#
# error[unknown-name]: there is no `secret.hok`
#   --> stack.hcl:16:19
#    |
# 16 |   secret = secret.hok
#    |                   ^^^
#    = help: did you mean `hook`?
#
# error[wrong-type]: `url` of notify "query": it ends with a path, without `?` and `#`
#   --> stack.hcl:20:12
#    |
# 20 |   url    = "https://chat.example/?token=1"
#    |            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
#
# error[unknown-name]: a webhook can't be referred to
#   --> stack.hcl:21:12
#    |
# 21 |   secret = notify.none
#    |            ^^^^^^
#
# error[missing-attribute]: `notify` needs the attribute `url`
#   --> stack.hcl:24:1
#    |
# 24 | notify "query" {}
#    | ^^^^^^^^^^^^^^
#    = help: url = … (URL): Where the requests go: `http://` or `https://`, without a user and without `?`. Redirects are not followed.
#
# error[missing-attribute]: `notify` needs the attribute `secret`
#   --> stack.hcl:24:1
#    |
# 24 | notify "query" {}
#    | ^^^^^^^^^^^^^^
#    = help: secret = … (secret): `secret.NAME`: what signs the requests. One that begins with `whsec_` has the key in base64, as Standard Webhooks writes it.
#
# error[duplicate]: `notify "query"` is declared twice
#   --> stack.hcl:24:8
#    |
# 24 | notify "query" {}
#    |        ^^^^^^^ again here
#   ::: stack.hcl:19:1
#    |
# 19 | notify "query" {
#    | -------------- first here
