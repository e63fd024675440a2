stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

# The new instances, then somebody else; a command is tried again, too.
service "web" {
  image = image.web
  rollout "blue_green" {
    step {
      check {
        http { path = "/ready?deep=1" }
      }
    }
    step {
      check {
        http {
          path     = "/admin"
          port     = "admin"
          method   = "HEAD"
          status   = 401
        }
        timeout = "2s"
      }
    }
    step {
      check {
        http {
          url      = "https://shop.example/hooks/ready?stack=shop"
          method   = "POST"
          contains = "go on"
        }
        attempts = 5
        interval = "30s"
      }
    }
    step {
      check {
        exec     = ["/web", "check"]
        attempts = 3
      }
    }
  }

  port "http" {
    number = 8080
  }
  port "admin" {
    number = 9090
  }
}

# Who has no ports can ask others, at any moment.
worker "mail" {
  image = image.web
  rollout "stop_then_start" {
    step {
      check {
        http { url = "http://127.0.0.1:9000/" }
      }
    }
    step { retire = true }
    step { create = true }
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service mail: ServiceDefinition { kind: Worker, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [Ask(Ask { service: "mail", whom: Url("http://127.0.0.1:9000/"), method: Get, status: None, contains: None, timeout: Millis(10000), again: Again { attempts: 1, interval: Millis(0) }, access: Access { credentials: None, roots: None } })], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"admin": 9090, "http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [Ask(Ask { service: "web", whom: Instances { port: "http", path: "/ready?deep=1" }, method: Get, status: None, contains: None, timeout: Millis(10000), again: Again { attempts: 1, interval: Millis(0) }, access: Access { credentials: None, roots: None } }), Ask(Ask { service: "web", whom: Instances { port: "admin", path: "/admin" }, method: Head, status: Some(401), contains: None, timeout: Millis(2000), again: Again { attempts: 1, interval: Millis(0) }, access: Access { credentials: None, roots: None } }), Ask(Ask { service: "web", whom: Url("https://shop.example/hooks/ready?stack=shop"), method: Post, status: None, contains: Some("go on"), timeout: Millis(10000), again: Again { attempts: 5, interval: Millis(30000) }, access: Access { credentials: None, roots: None } }), Check { job: "web-check-1", within: Millis(60000), again: Again { attempts: 3, interval: Millis(5000) } }], moved: [], drained: [], retired: [] } }
# service web-check-1: ServiceDefinition { kind: Job, image: "web", entrypoint: Some([]), command: Some(["/web", "check"]), env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: StopThenStart, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
