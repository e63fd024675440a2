stack "shop" {}

secret "token" {
  env = "PROMETHEUS_TOKEN"
}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

service "web" {
  image = image.web
  rollout "canary" {
    step {
      check {
        http {
          url      = "https://gate.example/shop"
          user     = "kiln"
          password = secret.token
        }
      }
    }
    step { shift = "5%" }
    step { analyse = "10m" }

    analysis {
      metric "queue" {
        prometheus = "https://prometheus.internal"
        query      = "sum(queue)"
        success    = "result < 5"
        bearer     = secret.token
        ca         = <<-EOT
          -----BEGIN CERTIFICATE-----
          MIIB
          -----END CERTIFICATE-----
        EOT
      }
    }
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# secret token: Environment("PROMETHEUS_TOKEN")
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: Canary(Canary { stages: [Stage { weight: Weight(50), gates: [Analyse(Millis(600000))] }], analysis: Some(Analysis { metrics: [], outside: [OutsideMetric { name: "queue", prometheus: "https://prometheus.internal", access: Access { credentials: Some(Bearer("token")), roots: Some("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n") }, query: "sum(queue)", success: Some(Condition { comparison: Less, with: Number(5.0) }), failure: None, interval: Millis(30000), count: 3, failure_limit: 0, inconclusive_limit: 0, error_limit: 4, dry_run: false }], alpha: 50000, inconclusive: Stop, extensions: 0, synthetic: None, dry_run: false }), audience: Audience { sticky: None, aim: [], mirror: None }, max_surge: None }), bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [Ask(Ask { service: "web", whom: Url("https://gate.example/shop"), method: Get, status: None, contains: None, timeout: Millis(10000), again: Again { attempts: 1, interval: Millis(0) }, access: Access { credentials: Some(Basic { user: "kiln", password: "token" }), roots: None } })], moved: [], drained: [], retired: [] } }
