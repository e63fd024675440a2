stack "s" {}

image "both" {
  from       = "scratch"
  dockerfile = "./web"
}

image "neither" {
  command = ["x"]
}

image "alone" {
  from   = "scratch"
  target = "x"
}

image "outside" {
  dockerfile = "../web"
  contexts   = { debian = "debian:bookworm" }
}

image "circle" {
  dockerfile = "web"
  contexts   = { x = image.other }
}

image "other" {
  from = image.circle
}

image "literal" {
  dockerfile = "web"
  secrets    = { npm = "value" }
}
#: expect
# error[wrong-value]: image "both" has both `from` and `dockerfile`
#  --> stack.hcl:4:16
#   |
# 4 |   from       = "scratch"
#   |                ^^^^^^^^^
#   = help: a Dockerfile says itself what it starts from; `contexts` gives it bases and images
#
# error[missing-attribute]: image "neither" does not say what it starts from
#  --> stack.hcl:8:1
#   |
# 8 | image "neither" {
#   | ^^^^^^^^^^^^^^^
#   = help: set `from`, or `dockerfile`
#
# error[wrong-value]: `target` of image "alone" means nothing without `dockerfile`
#   --> stack.hcl:14:12
#    |
# 14 |   target = "x"
#    |            ^^^
#
# error[wrong-type]: `dockerfile` of image "outside": "../web" leaves the stack folder
#   --> stack.hcl:18:16
#    |
# 18 |   dockerfile = "../web"
#    |                ^^^^^^^^
#
# error[wrong-value]: `contexts.debian` of image "outside": "debian:bookworm" does not say which registry has it
#   --> stack.hcl:19:27
#    |
# 19 |   contexts   = { debian = "debian:bookworm" }
#    |                           ^^^^^^^^^^^^^^^^^
#    = help: start from `base.debian.NAME`, `image.NAME`, "scratch", or an image of a registry, as "docker.io/library/debian:12"
#
# error[cycle]: image.circle starts from itself: image.circle -> image.other -> image.circle
#   --> stack.hcl:22:1
#    |
# 22 | image "circle" {
#    | ^^^^^^^^^^^^^^
#   ::: stack.hcl:27:1
#    |
# 27 | image "other" {
#    | ------------- starts from it
#
# error[wrong-type]: `secrets.npm` of image "literal": expected `secret.NAME`, found a string
#   --> stack.hcl:33:24
#    |
# 33 |   secrets    = { npm = "value" }
#    |                        ^^^^^^^
#    = help: write the name without quotes: `secret.NAME`
