stack "My Shop" {}
image "web image" {
  from    = "scratch"
  command = ["/web"]
}


service "Web_1" {
  image = image.web
}
volume "a/b" {}
#: expect
# error[invalid-name]: `My Shop` is not a valid stack name: use 1 to 40 lower-case letters, digits and hyphens, beginning and ending with a letter or digit
#  --> stack.hcl:1:7
#   |
# 1 | stack "My Shop" {}
#   |       ^^^^^^^^^
#
# error[invalid-name]: `web image` is not a valid image name: use 1 to 40 letters, digits, `_` and `-`, beginning with a letter or `_`
#  --> stack.hcl:2:7
#   |
# 2 | image "web image" {
#   |       ^^^^^^^^^^^
#
# error[invalid-name]: `Web_1` is not a valid service name: use 1 to 40 lower-case letters, digits and hyphens, beginning and ending with a letter or digit
#  --> stack.hcl:8:9
#   |
# 8 | service "Web_1" {
#   |         ^^^^^^^
#
# error[unknown-name]: there is no `image.web`
#  --> stack.hcl:9:17
#   |
# 9 |   image = image.web
#   |                 ^^^
#   = help: declared are: web image
#
# error[invalid-name]: `a/b` is not a valid volume name: use 1 to 40 letters, digits, `_` and `-`, beginning with a letter or `_`
#   --> stack.hcl:11:8
#    |
# 11 | volume "a/b" {}
#    |        ^^^^^
