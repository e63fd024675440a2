stack "shop" {}

image "a" {
  from = image.b
}

image "b" {
  from = image.c
}

image "c" {
  from = image.a
}
#: expect
# error[cycle]: image.a starts from itself: image.a -> image.b -> image.c -> image.a
#   --> stack.hcl:3:1
#    |
#  3 | image "a" {
#    | ^^^^^^^^^
#   ::: stack.hcl:7:1
#    |
#  7 | image "b" {
#    | --------- starts from it
#   ::: stack.hcl:11:1
#    |
# 11 | image "c" {
#    | --------- starts from it
