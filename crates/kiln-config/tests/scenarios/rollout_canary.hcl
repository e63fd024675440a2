stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "short" {
  image = image.web
  rollout "canary" {
    steps = ["5%", "25%", "100%"]

    analysis {
      error_rate  = { worse_by = 0.01 }
      latency_p99 = { worse_by = "20%" }
    }
  }

  port "http" {
    number = 8080
  }
}

service "long" {
  image = image.web
  rollout "canary" {
    warm_for = "30m"

    step {
      shift = "1%"
    }
    step {
      hold = "10m"
    }
    step {
      analyse = "1h"
    }
    step {
      shift = "50%"
    }
    step {
      approve = ["olga", "ops"]
      within  = "2h"
    }

    analysis {
      latency_p999 = { worse_by = "50ms" }
      error_rate   = { worse_by = "50%" }
      client_errors = { worse_by = "50%" }
      alpha        = 0.01
      inconclusive = "ask"
      dry_run      = true
    }
  }

  port "http" {
    number = 8080
  }
}

service "plain" {
  image = image.web
  rollout "canary" {}

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service long: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(10), gates: [Hold(Millis(600000)), Analyse(Millis(3600000))] }, Stage { weight: Weight(500), gates: [Approve { by: ["olga", "ops"], within: Millis(7200000) }] }], analysis: Some(Analysis { metrics: [Metric { kind: Latency { quantile: 999000 }, worse_by: Absolute(50000) }, Metric { kind: ErrorRate, worse_by: Relative(500000) }, Metric { kind: ClientErrors, worse_by: Relative(500000) }], outside: [], alpha: 10000, inconclusive: Ask, extensions: 0, synthetic: None, dry_run: true }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(1800000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service plain: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Hold(Millis(60000))] }, Stage { weight: Weight(250), gates: [Hold(Millis(60000))] }], analysis: None, audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service short: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Analyse(Millis(600000))] }, Stage { weight: Weight(250), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [Metric { kind: ErrorRate, worse_by: Absolute(10000) }, Metric { kind: Latency { quantile: 990000 }, worse_by: Relative(200000) }], outside: [], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
