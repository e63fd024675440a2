stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  env = { B = service.b.url }

  port "http" {
    number = 8080
  }
}

service "b" {
  image = image.web
  env = { A = service.a.url }

  port "http" {
    number = 8080
  }
}

service "c" {
  image = image.web
  env = { A = service.a.url, SELF = service.c.url }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service a: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {"B": "http://b.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"b"}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service b: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {"A": "http://a.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"a"}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service c: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {"A": "http://a.shop.kiln", "SELF": "http://c.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"a", "c"}, after: {"a"}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
