//! `kiln status`

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use kiln_edge::ledger::{Counts, LedgerSnapshot};
use kiln_model::{ByteSize, EnvKey, EnvName, Millis, StackName, Timestamp};
use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::follow::frame::{paused, title};
use super::image::disk_text;
use super::screen::Paint;
use super::table::{Table, count, now, span};
use crate::api::wire;
use crate::controller::step::chain;
use crate::runtime::{Settings, StateDir};

/// Show what runs and what is going on
///
/// Every environment, or the one that --env or --stack names: its revision, the rollout and what it waits for, services,
/// health, URLs, and what became of the requests; then Kiln's own processes, and the limits that this machine can't enforce.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln status --env prod")]
pub(super) struct Args {}

/// How often it is looked again for a process that has left no pid, and the pause between: a process leaves it first of all,
/// some milliseconds after its birth.
const LOOKS_MAX: u32 = 5;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// One of Kiln's own processes.
struct Process {
    name: &'static str,
    pid: Option<u32>,
}

pub(super) fn run(_: &Args, context: &mut Context<'_>) -> Outcome {
    context.require_root("status")?;
    // Whatever ran here is to be served again: after a power failure, the first look repairs it.
    let client = if context.state().path().join("log").exists() {
        context.client("status")?
    } else {
        let Some(client) = context.running_client()? else {
            return not_running(context, &living(&context.state()));
        };
        client
    };
    let processes = processes(&context.state());
    let mut environments = client.environments()?;
    if let Some(env) = context.named_env() {
        environments.retain(|shown| shown.env == env.as_str());
    }
    if let Some(stack) = &context.globals.stack {
        environments.retain(|shown| shown.stack == stack.as_str());
    }
    let unenforced = super::hosts::unenforced(&context.state());
    let ledger = super::hosts::ledger(&context.state()).unwrap_or_default();
    let health = client.health().clone();
    let settings = Settings::read(&context.state());
    let budget = settings.as_ref().ok().and_then(|settings| settings.disk_budget);
    if context.screen.json() {
        context.screen.answer(&json!({
            "running": true,
            "version": health.version,
            "term": health.term,
            "position": health.position,
            "trouble": health.trouble,
            "damaged": health.damaged,
            "disk_budget_bytes": budget.map(|ByteSize(bytes)| bytes),
            "settings_trouble": settings.as_ref().err().map(|error| chain(error)),
            "disk": health.disk,
            "environments": environments_json(&environments, &ledger),
            "requests": requests_json(&ledger.total()),
            "processes": processes_json(&processes),
            "unenforced": unenforced,
        }));
        return Ok(Exit::Done);
    }
    let paint = context.screen.paint();
    let mut text = String::new();
    if environments.is_empty() {
        text.push_str("Nothing runs here yet: `kiln up` in a stack's folder.\n\n");
    }
    for environment in &environments {
        environment_text(&mut text, environment, paint);
        requests_text(&mut text, &requests_of(environment, &ledger), paint);
        text.push('\n');
    }
    let pids: Vec<String> = processes.iter().map(process_text).collect();
    let _ = writeln!(text, "Kiln {}: {}; log {}", health.version, pids.join(", "), health.position);
    if !health.trouble.is_empty() {
        let _ = writeln!(text, "{} nothing new can be recorded: {}", paint.red("!"), health.trouble);
        text.push_str(
            "  What is served goes on. If the disk of the state folder is full, free some space.\n",
        );
    }
    for damaged in &health.damaged {
        let _ = writeln!(text, "{} damaged: {damaged}", paint.red("!"));
    }
    text.push_str(&settings_text(&settings, health.disk.as_ref(), paint));
    for limit in &unenforced {
        let _ = writeln!(text, "{} not enforced here: {limit}", paint.yellow("!"));
    }
    context.screen.print(&text);
    Ok(Exit::Done)
}

/// What is settled, and what comes of settings that nobody can read: they are no reason to say nothing of what runs.
fn settings_text(settings: &io::Result<Settings>, disk: Option<&wire::Disk>, paint: Paint) -> String {
    match settings {
        Ok(settings) => settings.disk_budget.map_or_else(String::new, |it| budget_text(it, disk, paint)),
        Err(error) => format!(
            "{} nothing is collected: {}\n  What runs and what is kept stay as they are. `kiln host set --disk-budget SIZE`, or `none`, writes the settings anew.\n",
            paint.red("!"),
            chain(error)
        ),
    }
}

fn budget_text(budget: ByteSize, disk: Option<&wire::Disk>, paint: Paint) -> String {
    match disk.filter(|disk| disk.budget_bytes == budget.0) {
        None => format!("The store's budget is {budget}; how much it takes is not known yet.\n"),
        Some(disk) if !disk.is_short() => disk_text(disk, "takes"),
        Some(disk) => {
            let hint = "  `kiln image gc --dry-run` says what keeps each image.\n";
            format!("{} {}{hint}", paint.yellow("!"), disk_text(disk, "takes"))
        }
    }
}

fn not_running(context: &mut Context<'_>, processes: &[Process]) -> Outcome {
    if context.screen.json() {
        context
            .screen
            .answer(&json!({ "running": false, "processes": processes_json(processes), "environments": [] }));
        return Ok(Exit::External);
    }
    let state = context.state();
    Err(Failure::external(format!("Kiln does not run for {}", state.path().display()))
        .cause("no controller answers; instances that were started go on without it")
        .hint("`kiln up` starts it, and so does `kiln host`"))
}

fn processes_json(processes: &[Process]) -> Value {
    processes
        .iter()
        .map(|process| (process.name.to_string(), json!(process.pid)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn process_text(process: &Process) -> String {
    match process.pid {
        Some(pid) => format!("{} {pid}", process.name),
        None => format!("{} not running", process.name),
    }
}

/// Kiln's processes. One that has just begun has not left its pid yet, so what is missing is looked for again.
fn processes(state: &StateDir) -> Vec<Process> {
    for _ in 0..LOOKS_MAX {
        let found = living(state);
        if found.iter().all(|process| process.pid.is_some()) {
            return found;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    living(state)
}

/// The processes by what they wrote into their lock files, if they still live.
fn living(state: &StateDir) -> Vec<Process> {
    ["host", "edge", "controller"]
        .into_iter()
        .map(|name| {
            let text = fs::read_to_string(state.lock_file(name)).unwrap_or_default();
            let pid =
                text.trim().parse().ok().filter(|pid: &u32| Path::new(&format!("/proc/{pid}")).exists());
            Process { name, pid }
        })
        .collect()
}

fn environment_text(text: &mut String, environment: &wire::Environment, paint: Paint) {
    let at = environment.current.map_or_else(|| "no revision yet".into(), |number| format!("at #{number}"));
    // Writing to a String can't fail.
    let _ = writeln!(text, "{}  {at}", paint.bold(&format!("{}/{}", environment.stack, environment.env)));
    if let Some(origin) = &environment.origin {
        let _ = writeln!(text, "  from {origin}");
    }
    if let Some(rollout) = &environment.rollout {
        rollout_text(text, rollout, environment, paint);
    }
    if let Some(ends) = environment.ends_ms {
        let left = span(Timestamp(ends).since(Timestamp(environment.now_ms)));
        let _ = writeln!(text, "  ends by itself in {left}, unless `kiln up` renews it");
    }
    for wait in &environment.waits_for {
        let _ = writeln!(text, "    waits for {wait}");
    }
    let mut table = Table::new(&["SERVICE", "KIND", "HEALTHY", "SERVING", "ROLLOUT", "IMAGE", ""]);
    for service in &environment.services {
        table.row(service_cells(service, paint));
    }
    if !environment.services.is_empty() {
        text.push_str(&table.render(2));
    }
    for route in &environment.routes {
        let _ = writeln!(text, "  {}  to {}.{}", paint.bold(&route.url), route.service, route.port);
    }
}

/// What the ledger says of an environment.
fn requests_of(environment: &wire::Environment, ledger: &LedgerSnapshot) -> Counts {
    let key = StackName::new(environment.stack.as_str())
        .ok()
        .zip(EnvName::new(environment.env.as_str()).ok())
        .map(|(stack, env)| EnvKey { stack, env });
    key.map(|key| ledger.total_of(&key, None)).unwrap_or_default()
}

fn environments_json(environments: &[wire::Environment], ledger: &LedgerSnapshot) -> Vec<Value> {
    let shown = |environment: &wire::Environment| {
        let mut value = serde_json::to_value(environment).expect("an environment has text keys");
        value["requests"] = requests_json(&requests_of(environment, ledger));
        value
    };
    environments.iter().map(shown).collect()
}

fn requests_json(counts: &Counts) -> Value {
    json!({
        "begun": counts.begun,
        "answered": counts.answered,
        "in_flight": counts.in_flight(),
        "lost": counts.lost(),
        "cut": counts.cut,
        "made": counts.made,
        "declined": counts.declined,
        "gone": counts.gone,
        "retried": counts.retried,
    })
}

fn requests_text(text: &mut String, counts: &Counts, paint: Paint) {
    if counts.begun == 0 {
        return;
    }
    let lost = match counts.lost() {
        0 => "0 lost".to_string(),
        lost => {
            let parts = [(counts.cut, "cut"), (counts.made, "answered by the edge in place of a backend")];
            let parts: Vec<String> =
                parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
            paint.red(&format!("{lost} lost ({})", parts.join(", ")))
        }
    };
    // Writing to a String can't fail.
    let _ =
        writeln!(text, "  requests: {} answered, {lost}, {} in flight", counts.answered, counts.in_flight());
}

fn service_cells(service: &wire::Service, paint: Paint) -> [String; 7] {
    let healthy = match service.kind.as_str() {
        "job" => "-".to_string(),
        _ => format!("{}/{}", service.healthy, service.replicas),
    };
    let healthy = match service.healthy >= service.replicas {
        true => paint.green(&healthy),
        false => paint.yellow(&healthy),
    };
    let owner = match service.replicas_owner.as_str() {
        "hand" => " (scaled by hand)",
        "autoscaler" => " (autoscaler)",
        _ => "",
    };
    let image = service.image.strip_prefix("sha256:").unwrap_or(&service.image);
    [
        service.name.clone(),
        service.kind.clone(),
        healthy + owner,
        if service.kind == "service" { service.serving.to_string() } else { "-".into() },
        service.strategy.clone(),
        image.chars().take(12).collect(),
        paint.yellow(&service.trouble),
    ]
}

fn rollout_text(text: &mut String, rollout: &wire::Rollout, environment: &wire::Environment, paint: Paint) {
    let title = title(rollout);
    let Some(ended) = &rollout.ended else {
        let done = rollout.steps.iter().filter(|step| step.state == "done").count();
        let passed = span(Millis(environment.now_ms.saturating_sub(rollout.started_ms)));
        let steps = count(rollout.steps.len(), "step");
        let _ = writeln!(
            text,
            "  {} {title} by {}: {done} of {steps}, {passed}",
            paint.yellow("▸"),
            rollout.actor
        );
        if let Some(pause) = &rollout.paused {
            let _ = writeln!(text, "    {}", paint.yellow(&paused(pause)));
        }
        if let Some(reason) = &rollout.going_back {
            let _ = writeln!(text, "    {}", paint.red(&format!("going back: {reason}")));
        }
        if !rollout.trouble.is_empty() {
            let _ = writeln!(text, "    last trouble: {}", rollout.trouble);
        }
        return;
    };
    let ago = span(now().since(Timestamp(ended.at_ms)));
    let outcome = ended.outcome.replace('_', " ");
    let outcome = if ended.outcome == "completed" { paint.green(&outcome) } else { paint.red(&outcome) };
    let _ = writeln!(text, "  {title} by {}: {outcome} {ago} ago", rollout.actor);
    if !ended.reason.is_empty() {
        let _ = writeln!(text, "    {}", ended.reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cant_be_read_are_told_with_what_comes_of_them_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("settings.json"), "{\"version\": 7}").unwrap();
        let read = || Settings::read(&StateDir::new(folder.path()));
        let text = settings_text(&read(), None, Paint::PLAIN);
        let first = format!(
            "! nothing is collected: {}/settings.json is no settings: a later Kiln wrote version 7\n",
            folder.path().display()
        );
        assert!(text.starts_with(&first), "{text}");
        assert!(text.contains("`kiln host set --disk-budget SIZE`, or `none`, writes"), "{text}");
        std::fs::remove_file(folder.path().join("settings.json")).unwrap();
        assert_eq!(settings_text(&read(), None, Paint::PLAIN), "");
    }

    #[test]
    fn an_environment_shows_what_its_rollout_waits_for() {
        let environment = wire::Environment {
            stack: "shop".into(),
            env: "dev".into(),
            origin: Some("/srv/shop".into()),
            current: Some(41),
            now_ms: 12_000,
            waits_for: vec!["web/0 to become healthy".into()],
            rollout: Some(wire::Rollout {
                from: Some(41),
                to: Some(42),
                cause: "up".into(),
                actor: "alice".into(),
                steps: vec![wire::Step { state: "done".into(), ..Default::default() }, wire::Step::default()],
                ..Default::default()
            }),
            services: vec![wire::Service {
                name: "web".into(),
                kind: "service".into(),
                strategy: "blue_green".into(),
                replicas: 2,
                healthy: 1,
                serving: 2,
                image: format!("sha256:{}", "ab".repeat(32)),
                ..Default::default()
            }],
            routes: vec![wire::Route {
                url: "http://localhost:8080/".into(),
                service: "web".into(),
                port: "http".into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let mut text = String::new();
        environment_text(&mut text, &environment, Paint::PLAIN);
        let expected = "\
shop/dev  at #41
  from /srv/shop
  ▸ up #41 → #42 by alice: 1 of 2 steps, 12s
    waits for web/0 to become healthy
  SERVICE  KIND     HEALTHY  SERVING  ROLLOUT     IMAGE
  web      service  1/2      2        blue_green  abababababab
  http://localhost:8080/  to web.http
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_became_of_the_requests_is_said_and_what_was_lost_is_told_apart() {
        let text = |counts| {
            let mut text = String::new();
            requests_text(&mut text, &counts, Paint::PLAIN);
            text
        };
        assert_eq!(text(Counts::default()), "");
        let well = Counts { begun: 12, ended: 10, answered: 9, gone: 1, ..Counts::default() };
        assert_eq!(text(well), "  requests: 9 answered, 0 lost, 2 in flight\n");
        let ill = Counts { begun: 12, ended: 12, answered: 9, cut: 2, made: 1, ..Counts::default() };
        assert_eq!(
            text(ill),
            "  requests: 9 answered, 3 lost (2 cut, 1 answered by the edge in place of a backend), 0 in flight\n"
        );
    }
}
