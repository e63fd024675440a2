#: var replcas=3
#: env-var whatever=3
stack "shop" {}

variable "replicas" {
  default = 1
}
#: expect
# error[unknown-variable]: -var replcas: there is no `variable "replcas"`
#   = help: did you mean `replicas`?
