stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

secret "db" {
  env = "DB_PASSWORD"
}

service "web" {
  image = image.web
  env = { PASSWORD = secret.db, P = "x${secret.db}", Q = secret.db.value }

  port "http" {
    number = 8080
  }
}
#: expect
# error[wrong-type]: what is put into a string has the wrong type: expected a string, found secret "db"
#   --> stack.hcl:14:41
#    |
# 14 |   env = { PASSWORD = secret.db, P = "x${secret.db}", Q = secret.db.value }
#    |                                         ^^^^^^^^^ expected a string
#   ::: stack.hcl:8:1
#    |
#  8 | secret "db" {
#    | ----------- the value comes from here
#
# error[unknown-attribute]: secret "db" has no attribute `value`
#   --> stack.hcl:14:68
#    |
# 14 |   env = { PASSWORD = secret.db, P = "x${secret.db}", Q = secret.db.value }
#    |                                                                    ^^^^^
#    = help: a secret's value is never seen by a stack; use `secrets = { PATH = secret.NAME }`
