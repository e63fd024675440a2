stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "a" {
  image = image.web
  rollout "rolling" {
    max_unavailable = 1
    drain_deadline  = "5s"
  }

  port "http" {
    number = 8080
  }
}
service "b" {
  image = image.web
  rollout "stop_then_start" {
    progress_deadline = "10m"
    warm_for          = "0s"
    min_healthy_time  = "30s"
  }

  port "http" {
    number = 8080
  }
}
service "e" {
  image = image.web
  rollout "blue_green" {
    auto_promote = false
  }

  port "http" {
    number = 8080
  }
}
worker "c" {
  image = image.web
  depends_on = [service.a, job.d]
}

job "d" {
  image   = image.web
  command = ["/migrate"]
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service a: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Rolling { max_surge: 1, max_unavailable: 1, waves: None }, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(5000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service b: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(600000), drain_deadline: Millis(30000), warm_for: Millis(0), healthy_for: Millis(30000), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service c: ServiceDefinition { kind: Worker, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {"a", "d"}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service d: ServiceDefinition { kind: Job, image: "web", entrypoint: None, command: Some(["/migrate"]), env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service e: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: false, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
