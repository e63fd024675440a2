stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "short" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      inconclusive = "extend"
    }
  }

  port "http" {
    number = 8080
  }
}

service "long" {
  image = image.web
  rollout "canary" {
    analysis {
      error_rate   = { worse_by = 0.01 }
      within       = "30m"
      inconclusive = "extend"
      extend_limit = 5
      then         = "ask"
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service long: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Analyse(Millis(1800000))] }, Stage { weight: Weight(250), gates: [Analyse(Millis(1800000))] }], analysis: Some(Analysis { metrics: [Metric { kind: ErrorRate, worse_by: Absolute(10000) }], outside: [], alpha: 50000, inconclusive: Ask, extensions: 5, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
# service short: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Analyse(Millis(600000))] }, Stage { weight: Weight(250), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [Metric { kind: ErrorRate, worse_by: Absolute(10000) }], outside: [], alpha: 50000, inconclusive: Stop, extensions: 3, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
