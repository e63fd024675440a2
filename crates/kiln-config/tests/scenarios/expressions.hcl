#: file motd.txt=Hello\n
#: file conf.tpl=%{ for p in ports ~}\nlisten ${p}\n%{ endfor ~}\n
stack "shop" {}

image "web" {
  from    = "scratch"
  command = ["/web"]
}

variable "ports" {
  default = [80, 443]
}

locals {
  text = <<-EOT
    ports:
    %{for p in var.ports~}
      - ${p}
    %{endfor~}
    done
  EOT
  raw = <<EOT
  kept
    as it is $${x}
EOT
}

service "web" {
  image = image.web
  env = {
    TEXT = local.text
    RAW  = local.raw
    MOTD = file("motd.txt")
    CONF = templatefile("conf.tpl", { ports = var.ports })
    SUM  = sum(var.ports)
    TRY  = try(var.ports[9], "none")
    WHEN = timestamp()
    IF   = length(var.ports) > 1 ? "many" : "one"
    MAP  = jsonencode({ for i, p in var.ports : "p${i}" => p if p > 80 })
  }

  port "http" {
    number = 8080
  }
}
#: expect
# stack shop in dev
# image web: ImageRecipe { from: Scratch, steps: [], config: ImageConfig { env: {}, entrypoint: [], command: ["/web"], workdir: "", user: "", labels: {}, expose: [], volumes: [], stop_signal: "", health: None }, tests: [], scan: None }
# service web: ServiceDefinition { kind: Service, image: "web", entrypoint: None, command: None, env: {"CONF": "listen 80\nlisten 443\n", "IF": "many", "MAP": "{\"p1\":443}", "MOTD": "Hello\n", "RAW": "  kept\n    as it is ${x}\n", "SUM": "523", "TEXT": "ports:\n  - 80\n  - 443\ndone\n", "TRY": "none", "WHEN": "2026-01-02T03:04:05Z"}, workdir: None, user: None, secrets: {}, volumes: {}, scratch: {}, ports: {"http": 8080}, health: None, limits: Limits { memory: None, cpu: None, pids: 512 }, security: Security { add_capabilities: {}, drop_capabilities: {} }, stop_signal: None, stop_grace: Millis(10000), uses: {}, after: {}, replicas: 1, strategy: BlueGreen, bounds: RolloutBounds { progress_deadline: Millis(120000), drain_deadline: Millis(30000), warm_for: Millis(600000), healthy_for: Millis(0), auto_promote: true, auto_revert: true }, interludes: Interludes { before: [], created: [], ready: [], moved: [], drained: [], retired: [] } }
