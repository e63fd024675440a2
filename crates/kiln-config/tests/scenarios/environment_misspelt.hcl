#: env prdo
stack "shop" {}

environment "prod" {}
#: expect
# warning[undeclared-environment]: no `environment "prdo"` is declared, its variables have their defaults
#   = help: did you mean `prod`?
#
# stack shop in prdo
