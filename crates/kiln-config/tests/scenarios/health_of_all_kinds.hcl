stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  health {
    tcp  = true
    port = 9000
  }

  port "http" {
    number = 8080
  }
}
service "b" {
  image = image.web
  health {
    command        = ["/check"]
    healthy_after = 2
  }

  port "http" {
    number = 8080
  }
}
service "c" {
  image = image.web
  health {
    http    = "/h?x=1"
    status  = 204
    port    = "admin"
    timeout = "500ms"
    startup = "1m30s"
  }
  port "admin" {
    number = 9090
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service a: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: Some(HealthCheck { probe: Tcp { port: 9000 }, interval: Millis(2000), timeout: Millis(1000), startup: Millis(60000), healthy_after: 1, unhealthy_after: 3, closed_ports: {} }), limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service b: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: Some(HealthCheck { probe: Command { argv: ["/check"], expected: None }, interval: Millis(2000), timeout: Millis(1000), startup: Millis(60000), healthy_after: 2, unhealthy_after: 3, closed_ports: {} }), limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service c: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"admin": 9090, "http": 8080}, health: Some(HealthCheck { probe: Http { port: 9090, path: "/h?x=1", status: Some(204) }, interval: Millis(2000), timeout: Millis(500), startup: Millis(90000), healthy_after: 1, unhealthy_after: 3, closed_ports: {} }), limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
