stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

volume "a" {
  for_each = ["x"]
}

volume "b" {
  for_each = 3
}

volume "c" {
  for_each = toset(["a/b"])
}

service "d" {
  for_each = { eu = 1 }
  image    = image.web
  env      = { A = service.d["us"].url, B = service.d.url }

  port "http" {
    number = 1
  }
}

service "e" {
  image = image.web["x"]
}

service "f" {
  image = image.many
}

image "many" {
  for_each = { a = 1 }
  from     = "scratch"
}
#: expect
# error[wrong-type]: `for_each` takes a map or a set of strings, found a list
#  --> stack.hcl:9:14
#   |
# 9 |   for_each = ["x"]
#   |              ^^^^^
#   = help: write `toset([…])`: the elements become names, so each must be there once
#
# error[wrong-type]: `for_each` takes a map or a set of strings, found a number
#   --> stack.hcl:13:14
#    |
# 13 |   for_each = 3
#    |              ^
#
# error[invalid-name]: `c-a/b` is not a valid volume name: use 1 to 40 letters, digits, `_` and `-`, beginning with a letter or `_`
#   --> stack.hcl:16:8
#    |
# 16 | volume "c" {
#    |        ^^^
#
# error[no-such-key]: an object has no key "us"
#   --> stack.hcl:23:29
#    |
# 23 |   env      = { A = service.d["us"].url, B = service.d.url }
#    |                             ^^^^^^
#
# error[unknown-attribute]: an object has no attribute `url`
#   --> stack.hcl:23:55
#    |
# 23 |   env      = { A = service.d["us"].url, B = service.d.url }
#    |                                                       ^^^
#    = help: it has `for_each`: say which one, as in `["eu"].url`
#
# error[wrong-type]: image "web" has no `for_each`, so it can't be indexed
#   --> stack.hcl:31:20
#    |
# 31 |   image = image.web["x"]
#    |                    ^^^^^
#
# error[wrong-type]: `image` of service "f": expected `image.NAME`, found an object
#   --> stack.hcl:35:11
#    |
# 35 |   image = image.many
#    |           ^^^^^^^^^^
#    = help: it has `for_each`: say which one, as in `[each.key]`
