stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "cookie" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    sticky {
      cookie  = "kiln-web"
      max_age = "1h"
    }
    match {
      header = "X-Version"
      equals = "next"
    }
    match {
      header = "X-Version"
      prefix = "old-"
      to     = "stable"
    }
    match {
      header = "X-Tester"
    }
    mirror {
      share = "10%"
    }
  }

  port "http" {
    number = 8080
  }
}

service "header" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    sticky {
      header = "X-User"
    }
    mirror {}
  }

  port "http" {
    number = 8080
  }
}

service "address" {
  image = image.web
  rollout "canary" {
    steps = ["5%"]

    sticky {
      address = true
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service address: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Hold(Millis(60000))] }], analysis: None, audience: Audience { sticky: Some(Address), aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service cookie: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Hold(Millis(60000))] }], analysis: None, audience: Audience { sticky: Some(Cookie { name: "kiln-web", max_age: Millis(3600000) }), aim: [Aim { header: "X-Version", value: Exact("next"), group: Canary }, Aim { header: "X-Version", value: Prefix("old-"), group: Stable }, Aim { header: "X-Tester", value: Present, group: Canary }], mirror: Some(Mirror { share: Weight(100) }) }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service header: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Hold(Millis(60000))] }], analysis: None, audience: Audience { sticky: Some(Header { name: "X-User" }), aim: [], mirror: Some(Mirror { share: Weight(1000) }) }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
