stack "a" {}
locals {
  a = [for k, v in { x = 1, "y" = 2.5e3 } : "${k}-${v}" if v > 1 && !false]
  b = { for s in local.a : upper(s) => s... }
  c = local.a[*]
  d = <<-EOT
    %{ for s in local.a ~}
    ${s}
    %{ endfor ~}
  EOT
  e = true ? 1 : "x"
  f = length(local.a) % 2 == 0 ? null : try(local.a[5], -1)
}
