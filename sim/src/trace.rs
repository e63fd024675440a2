//! What happened, line by line, for whoever reads a failing seed.

use kiln_core::{ActionKind, Command};
use kiln_model::event::{CheckEvent, EnvironmentEvent};
use kiln_model::route::RouteTable;
use kiln_model::{Entry, Event};

/// The lines of a history; kept only when asked for, because most histories are fine.
#[derive(Debug)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(Vec::new) }
    }

    /// Adds a line at a moment of virtual time.
    pub(crate) fn line(&mut self, at: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>7}.{:03} {}", at / 1000, at % 1000, text()));
        }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// What an action asks for, in a few words.
pub(crate) fn brief_action(kind: &ActionKind) -> String {
    match kind {
        ActionKind::CreateInstance { id, service, .. } => format!("create {id} for {service}"),
        ActionKind::DestroyInstance { id, .. } => format!("destroy {id}"),
        ActionKind::PublishTable(table) => format!("publish {}", brief_table(table)),
        ActionKind::AwaitIdle(id) => format!("await idle {id}"),
        ActionKind::OpenListener(listener) => format!("open {listener}"),
        ActionKind::CloseListener(listener) => format!("close {listener}"),
    }
}

/// A table, in a few words.
pub(crate) fn brief_table(table: &RouteTable) -> String {
    let pools = table.pools.iter().map(|(key, pool)| {
        let backends: Vec<_> = pool
            .backends
            .iter()
            .map(|backend| format!("{}={}", backend.instance, backend.weight.per_mille()))
            .collect();
        format!("{key} [{}]", backends.join(" "))
    });
    format!("{} {}", table.fence, pools.collect::<Vec<_>>().join(", "))
}

/// A command, without all of what it deploys.
pub(crate) fn brief_command(command: &Command) -> String {
    match command {
        Command::Up { env, spec, base, .. } => {
            let services = spec.services.values().map(|service| {
                format!(
                    "{} {:?} x{} {:?} {} {:?}",
                    service.name,
                    service.kind,
                    service.replicas,
                    service.strategy,
                    service.spec_digest.short(),
                    service.spec.env.get("NATURE"),
                )
            });
            format!("up {env} base {base:?}: {}", services.collect::<Vec<_>>().join("; "))
        }
        Command::Check { env, image, within, .. } => format!("check {env} {} within {within}", image.short()),
        other => format!("{other:?}"),
    }
}

/// An event of the log, without specs.
pub(crate) fn brief_entry(entry: &Entry) -> String {
    let env = entry.env.as_ref().map_or_else(String::new, |env| format!(" {env}"));
    let text = match &entry.event {
        Event::Environment(EnvironmentEvent::RevisionSealed { revision }) => {
            format!("RevisionSealed {} composed {:?}", revision.number, revision.composed)
        }
        Event::Check(id, CheckEvent::Requested { image, deadline, .. }) => {
            format!("{id} requested for {} until {}", image.short(), deadline.0)
        }
        event => format!("{event:?}"),
    };
    format!("{}{env} {text}", entry.position)
}
