#: env prod
#: var a=flag
#: env-var a=env
#: env-var b=env
#: env-var c=env
#: env-var d=[1, 2]
stack "shop" {}

variable "a" {
  default = "default"
  scope   = "environment"
}

variable "b" {
  default = "default"
  scope   = "environment"
}

variable "c" {
  default = "default"
  scope   = "environment"
}

variable "d" {
  type    = list(string)
  scope   = "environment"
}

variable "e" {
  type  = object({ x = optional(number, 3) })
  scope = "environment"
  default = {}
}

environment "prod" {
  variables = { a = "block", b = "block" }
}

environment "dev" {
  variables = { c = "dev" }
}
#: expect
# stack shop in prod
# hole a: any = "block"
# hole b: any = "block"
# hole c: any = "env"
# hole d: list(string) = ["1","2"]
# hole e: object({x = optional(number)}) = {"x":3}
