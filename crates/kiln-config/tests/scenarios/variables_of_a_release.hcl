#: sealed colours=["red","blue"]
#: sealed greeting="a \"quoted\" ${word}"
#: env-var count=3
#: var pin=1234
stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

variable "colours" {
  type    = list(string)
  default = []
}

variable "greeting" {
  default = "hello"
}

variable "count" {
  type    = number
  default = 1
}

variable "pin" {
  type      = string
  sensitive = true
}

variable "unset" {
  default = "x"
}

service "web" {
  image    = image.web
  replicas = var.count
  env      = { COLOURS = join("+", var.colours), GREETING = var.greeting }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {"COLOURS": "red+blue", "GREETING": "a \"quoted\" ${word}"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 3, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# given colours = ["red","blue"]
# given count = 3
# given greeting = "a \"quoted\" ${word}"
# given pin = (left out)
