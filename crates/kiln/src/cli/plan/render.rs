//! A plan for people, with Terraform's symbols, and for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::changes::Change;
use super::diff::{Plan, RoutePlan, ServicePlan, Verb, WebhookPlan, kind_text};
use crate::cli::screen::Paint;
use crate::cli::table::count;

/// More changes than this of one service are counted, not listed: 10,000 files behind an image help nobody.
const CHANGES_SHOWN_MAX: usize = 40;

/// The plan as text. `target` names the environment, `base` what it was planned against.
pub(crate) fn text(plan: &Plan, target: &str, base: Option<u64>, paint: Paint) -> String {
    let mut out = String::new();
    let against = match base {
        Some(number) => format!("now at #{number}"),
        None => "nothing runs there yet".into(),
    };
    // Writing to a String can't fail.
    let _ = writeln!(out, "{} ({against})\n", paint.bold(&format!("Plan for {target}")));
    for service in plan.services.iter().filter(|service| service.verb != Verb::Keep) {
        service_text(&mut out, service, paint);
    }
    for route in plan.routes.iter().filter(|route| route.verb != Verb::Keep) {
        route_text(&mut out, route, paint);
    }
    for webhook in plan.webhooks.iter().filter(|webhook| webhook.verb != Verb::Keep) {
        let title = paint.bold(&format!("notify.{}", webhook.name));
        let _ = writeln!(out, "{} {title} {}", symbol(webhook.verb, paint), verb_text(webhook.verb));
        changes_text(&mut out, &webhook.changes, paint);
        out.push('\n');
    }
    out.push_str(&summary(plan));
    out.push('\n');
    out
}

/// One line: what changes and what stays.
pub(crate) fn summary(plan: &Plan) -> String {
    let totals = plan.totals();
    if !plan.has_changes() {
        return format!("No changes: {} services and routes as declared.", totals.keep);
    }
    format!(
        "Plan: {} to add, {} to replace, {} to change, {} to destroy; {} unchanged.",
        totals.create, totals.replace, totals.change, totals.remove, totals.keep
    )
}

fn symbol(verb: Verb, paint: Paint) -> String {
    match verb {
        Verb::Create => paint.green("  +"),
        Verb::Replace { new_first: true } => paint.yellow("+/-"),
        Verb::Replace { new_first: false } => paint.yellow("-/+"),
        Verb::Scale | Verb::Adjust => paint.yellow("  ~"),
        Verb::Remove => paint.red("  -"),
        Verb::Keep => "   ".into(),
    }
}

const fn verb_text(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "will be created",
        Verb::Replace { new_first: true } => "will be replaced, the new instances before the old ones go",
        Verb::Replace { new_first: false } => "will be replaced, the old instances stopped first",
        Verb::Scale => "will be scaled",
        Verb::Adjust => "will change without replacing an instance",
        Verb::Remove => "will be removed",
        Verb::Keep => "stays",
    }
}

fn service_text(out: &mut String, service: &ServicePlan, paint: Paint) {
    let title = format!("{}.{}", kind_text(service.kind), service.name);
    let replicas = match service.replicas {
        (0, new) => format!(" ({})", count(new as usize, "instance")),
        (old, 0) => format!(" ({})", count(old as usize, "instance")),
        (old, new) if old == new => format!(" ({})", count(new as usize, "instance")),
        (old, new) => format!(" ({old} to {})", count(new as usize, "instance")),
    };
    let symbol = symbol(service.verb, paint);
    let _ = writeln!(out, "{symbol} {} {}{replicas}", paint.bold(&title), verb_text(service.verb));
    changes_text(out, &service.changes, paint);
    out.push('\n');
}

fn route_text(out: &mut String, route: &RoutePlan, paint: Paint) {
    let title = paint.bold(&format!("route.{}", route.name));
    let _ = writeln!(out, "{} {title} {}: {}", symbol(route.verb, paint), verb_text(route.verb), route.text);
    changes_text(out, &route.changes, paint);
    out.push('\n');
}

fn changes_text(out: &mut String, changes: &[Change], paint: Paint) {
    for change in changes.iter().take(CHANGES_SHOWN_MAX) {
        let path = &change.path;
        let _ = match (&change.from, &change.to) {
            (Some(from), Some(to)) => writeln!(out, "      {} {path}: {from} -> {to}", paint.yellow("~")),
            (None, Some(to)) => writeln!(out, "      {} {path}: {to}", paint.green("+")),
            (Some(from), None) => writeln!(out, "      {} {path}: {from}", paint.red("-")),
            (None, None) => writeln!(out, "      {} {path}", paint.yellow("~")),
        };
        if !change.note.is_empty() {
            let _ = writeln!(out, "          {}", paint.dim(&change.note));
        }
    }
    if let Some(more) = changes.len().checked_sub(CHANGES_SHOWN_MAX + 1) {
        let _ = writeln!(out, "      … and {}", count(more + 1, "more change"));
    }
}

/// The plan as JSON.
pub(crate) fn json(plan: &Plan, target: &str, base: Option<u64>) -> Value {
    let totals = plan.totals();
    let change = |change: &Change| json!({ "path": change.path, "from": change.from, "to": change.to, "note": change.note });
    let services: Vec<Value> = plan
        .services
        .iter()
        .map(|service| {
            json!({
                "name": service.name.as_str(),
                "kind": kind_text(service.kind),
                "action": verb_name(service.verb),
                "replicas_from": service.replicas.0,
                "replicas_to": service.replicas.1,
                "changes": service.changes.iter().map(change).collect::<Vec<_>>(),
            })
        })
        .collect();
    let routes: Vec<Value> = plan
        .routes
        .iter()
        .map(|route| {
            json!({
                "name": route.name.as_str(),
                "action": verb_name(route.verb),
                "route": route.text,
                "changes": route.changes.iter().map(change).collect::<Vec<_>>(),
            })
        })
        .collect();
    let webhook = |webhook: &WebhookPlan| {
        let changes: Vec<Value> = webhook.changes.iter().map(change).collect();
        json!({ "name": webhook.name, "action": verb_name(webhook.verb), "changes": changes })
    };
    let webhooks: Vec<Value> = plan.webhooks.iter().map(webhook).collect();
    json!({
        "environment": target,
        "base": base,
        "has_changes": plan.has_changes(),
        "create": totals.create,
        "replace": totals.replace,
        "change": totals.change,
        "remove": totals.remove,
        "keep": totals.keep,
        "services": services,
        "routes": routes,
        "webhooks": webhooks,
    })
}

const fn verb_name(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Replace { .. } => "replace",
        Verb::Scale => "scale",
        Verb::Adjust => "adjust",
        Verb::Remove => "remove",
        Verb::Keep => "keep",
    }
}
