stack "shop" {}

locals {
  regions = { eu = "Frankfurt", us = "Ohio" }
}

image "web" {
  for_each = toset(["eu", "us"])
  from     = "scratch"
  command  = ["/web", each.key]
}

config "region" {
  for_each = local.regions
  city     = each.value
}

volume "data" {
  for_each = local.regions
}

service "web" {
  for_each = local.regions
  image    = image.web[each.key]
  volumes  = { "/data" = volume.data[each.key] }
  env = {
    CITY = config.region[each.key].city
    ALL  = join(",", [for k, c in config.region : "${k}=${c.city}"])
    PEER = service.api.url
  }

  port "http" {
    number = 8080
  }
}

service "api" {
  image = image.web["eu"]
  env   = { EU = service.web["eu"].url }
  depends_on = [service.web]

  port "http" {
    number = 80
  }
}

route "public" {
  for_each = local.regions
  listen   = ":80"
  host     = "${each.key}.example"
  to       = service.web[each.key].http
}
#: expect
# stack shop in dev
# image web-eu: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web", "eu"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# image web-us: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web", "us"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# volume data-eu
# volume data-us
# service api: ServiceDefinition { kind: Service, image: "web-eu", entrypoint: None, command: None, env: {"EU": "http://web-eu.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 80}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"web-eu"}, after: {"web-eu", "web-us"}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service web-eu: ServiceDefinition { kind: Service, image: "web-eu", entrypoint: None, command: None, env: {"ALL": "eu=Frankfurt,us=Ohio", "CITY": "Frankfurt", "PEER": "http://api.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {"/data": VolumeMount { volume: "data-eu", read_only: false }}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"api"}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service web-us: ServiceDefinition { kind: Service, image: "web-us", entrypoint: None, command: None, env: {"ALL": "eu=Frankfurt,us=Ohio", "CITY": "Ohio", "PEER": "http://api.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {"/data": VolumeMount { volume: "data-us", read_only: false }}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"api"}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# route public-eu: 0.0.0.0:80 Some("eu.example") / -> PortRef { service: "web-eu", port: "http" }
# route public-us: 0.0.0.0:80 Some("us.example") / -> PortRef { service: "web-us", port: "http" }
