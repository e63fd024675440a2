stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

job "migrate" {
  image      = image.web
  command    = ["/web", "migrate"]
  depends_on = [service.db]
}

job "smoke" {
  image   = image.web
  command = ["/web", "smoke"]
  env     = { URL = service.switched.url }
}

service "db" {
  image = image.web
  port "http" {
    number = 8080
  }
}

# What is first is a job; the approval waits for instances that are there, and what follows `shift` for the switch.
service "switched" {
  image = image.web
  rollout "blue_green" {
    step { run = job.migrate }
    step { approve = [] }
    step {
      check {
        exec    = ["/web", "check"]
        timeout = "30s"
      }
    }
    step { shift = "100%" }
    step {
      check {
        exec = ["/web", "check", "--all"]
      }
    }
    step {
      run    = job.smoke
      within = "1m"
    }
    step { hold = "5m" }
  }

  port "http" {
    number = 8080
  }
}

# All moves are written.
service "told" {
  image = image.web
  rollout "rolling" {
    step { hold = "1s" }
    step { create = true }
    step { hold = "2s" }
    step { wait = "healthy" }
    step { hold = "3s" }
    step { shift = "100%" }
    step { hold = "4s" }
    step { drain = true }
    step { hold = "5s" }
    step { retire = true }
    step { hold = "6s" }
  }
}

service "shared" {
  image = image.web
  rollout "canary" {
    step { run = job.migrate }
    step { hold = "1s" }
    step { shift = "5%" }
    step { run = job.smoke }
    step { shift = "100%" }
    step { hold = "2s" }
    step { retire = true }
    step { hold = "3s" }
  }

  port "http" {
    number = 8080
  }
}

# The old ones first: the migration has nobody beside it.
worker "mail" {
  image = image.web
  rollout "stop_then_start" {
    step { hold = "1s" }
    step { retire = true }
    step { run = job.migrate }
    step { create = true }
    step { wait = "healthy" }
    step { hold = "2s" }
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service db: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service mail: ServiceDefinition { kind: Worker, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {"db"}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [Hold(Millis(1000))], created: [], ready: [Hold(Millis(2000))], moved: [], drained: [], retired: [Run { job: "migrate", within: Millis(600000) }] } }
# service migrate: ServiceDefinition { kind: Job, image: "web", entrypoint: None, command: Some(["/web", "migrate"]), env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {"db"}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service shared: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {"db"}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Run { job: "smoke", within: Millis(600000) }] }], analysis: None, audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [Run { job: "migrate", within: Millis(600000) }], created: [], ready: [Hold(Millis(1000))], moved: [Hold(Millis(2000))], drained: [], retired: [Hold(Millis(3000))] } }
# service smoke: ServiceDefinition { kind: Job, image: "web", entrypoint: None, command: Some(["/web", "smoke"]), env: {"URL": "http://switched.shop.kiln"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {"switched"}, after: {"switched"}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service switched: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {"db"}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [Run { job: "migrate", within: Millis(600000) }], created: [], ready: [Approve { by: [], within: Millis(86400000) }, Check { job: "switched-check-1", within: Millis(30000), again: Again { attempts: 1, interval: Millis(0) } }], moved: [Check { job: "switched-check-2", within: Millis(60000), again: Again { attempts: 1, interval: Millis(0) } }, Run { job: "smoke", within: Millis(60000) }, Hold(Millis(300000))], drained: [], retired: [] } }
# service switched-check-1: ServiceDefinition { kind: Job, image: "web", entrypoint: Some([]), command: Some(["/web", "check"]), env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service switched-check-2: ServiceDefinition { kind: Job, image: "web", entrypoint: Some([]), command: Some(["/web", "check", "--all"]), env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service told: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Rolling { max_surge: 1, max_unavailable: 0, waves: None }, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [Hold(Millis(1000))], created: [Hold(Millis(2000))], ready: [Hold(Millis(3000))], moved: [Hold(Millis(4000))], drained: [Hold(Millis(5000))], retired: [Hold(Millis(6000))] } }
