//! Which inputs of an instance changed: every field of its spec, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use kiln_model::InstanceSpec;
use kiln_model::instance::{HealthCheck, Limits, Probe, Security, StopPolicy};

/// One input that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// What it is, as `env.GREETING`.
    pub path: String,
    /// What it was; none if it is new.
    pub from: Option<String>,
    /// What it will be; none if it goes.
    pub to: Option<String>,
    /// More about it, such as the files behind a new image; empty for nothing.
    pub note: String,
}

impl Change {
    /// A change without more to say.
    pub(crate) fn new(path: impl Into<String>, from: Option<String>, to: Option<String>) -> Self {
        Self { path: path.into(), from, to, note: String::new() }
    }
}

/// Collects the fields that differ.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<Change>);

impl Changes {
    /// The changes found so far.
    pub(crate) fn into_vec(self) -> Vec<Change> {
        self.0
    }

    /// Compares two values by what they print.
    pub(crate) fn value<T: PartialEq + Display>(&mut self, path: &str, old: &T, new: &T) {
        if old != new {
            self.0.push(Change::new(path, Some(old.to_string()), Some(new.to_string())));
        }
    }

    /// Compares two values that may be absent.
    pub(crate) fn optional(&mut self, path: &str, old: Option<String>, new: Option<String>) {
        if old != new {
            self.0.push(Change::new(path, old, new));
        }
    }

    /// Compares two texts, which may be empty.
    pub(crate) fn text(&mut self, path: &str, old: &str, new: &str) {
        if old != new {
            self.0.push(Change::new(path, Some(quoted(old)), Some(quoted(new))));
        }
    }

    /// Compares two maps, a change for each key.
    pub(crate) fn map<K: Ord + Display, V: PartialEq>(
        &mut self,
        path: &str,
        old: &BTreeMap<K, V>,
        new: &BTreeMap<K, V>,
        show: impl Fn(&V) -> String,
    ) {
        let keys: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
        for key in keys {
            let (before, after) = (old.get(key), new.get(key));
            if before != after {
                let path = format!("{path}.{key}");
                self.0.push(Change::new(path, before.map(&show), after.map(&show)));
            }
        }
    }
}

/// What differs between two specs but for the image, whose story is longer.
///
/// The destructuring is exhaustive on purpose: a field that is added to the spec can't be forgotten here, or a plan would
/// say "replace" without saying why.
pub(crate) fn spec_changes(old: &InstanceSpec, new: &InstanceSpec) -> Vec<Change> {
    let InstanceSpec {
        image: _,
        argv,
        env,
        workdir,
        user,
        secrets,
        volumes,
        scratch,
        ports,
        health,
        limits,
        security,
        stop,
        uses,
    } = new;
    let mut changes = Changes::default();
    changes.optional("argv", Some(words(&old.argv)), Some(words(argv)));
    changes.map("env", &old.env, env, |value| quoted(value));
    changes.text("workdir", &old.workdir, workdir);
    changes.text("user", &old.user, user);
    // A version is a random id: it says that the value is another one, and nothing about it.
    changes.map("secrets", &old.secrets, secrets, |secret| format!("{}@{}", secret.name, secret.version));
    changes.map("volumes", &old.volumes, volumes, |mount| {
        format!("{}{}", mount.volume, if mount.read_only { " (read-only)" } else { "" })
    });
    changes.map("scratch", &old.scratch, scratch, ToString::to_string);
    changes.map("ports", &old.ports, ports, ToString::to_string);
    health_changes(&mut changes, old.health.as_ref(), health.as_ref());
    limit_changes(&mut changes, &old.limits, limits);
    security_changes(&mut changes, &old.security, security);
    let StopPolicy { signal, grace } = stop;
    changes.value("stop.signal", &old.stop.signal, signal);
    changes.value("stop.grace", &old.stop.grace, grace);
    changes.optional("uses", Some(list(&old.uses)), Some(list(uses)));
    changes.into_vec()
}

fn health_changes(changes: &mut Changes, old: Option<&HealthCheck>, new: Option<&HealthCheck>) {
    let (Some(before), Some(after)) = (old, new) else {
        let show = |health: &HealthCheck| probe_text(&health.probe);
        return changes.optional("health", old.map(show), new.map(show));
    };
    // Ports that must be closed are asked for by tests alone, which are no part of a plan.
    let HealthCheck { probe, interval, timeout, startup, healthy_after, unhealthy_after, closed_ports: _ } =
        after;
    changes.value("health.probe", &probe_text(&before.probe), &probe_text(probe));
    changes.value("health.interval", &before.interval, interval);
    changes.value("health.timeout", &before.timeout, timeout);
    changes.value("health.startup", &before.startup, startup);
    changes.value("health.healthy_after", &before.healthy_after, healthy_after);
    changes.value("health.unhealthy_after", &before.unhealthy_after, unhealthy_after);
}

fn limit_changes(changes: &mut Changes, old: &Limits, new: &Limits) {
    let Limits { memory, cpu, pids } = new;
    let size = |size: &Option<kiln_model::ByteSize>| size.map(|size| size.to_string());
    let share =
        |cpu: &Option<kiln_model::MilliCpu>| cpu.map(|cpu| f64::from(cpu.0) / 1000.0).map(|n| n.to_string());
    changes.optional("resources.memory", size(&old.memory), size(memory));
    changes.optional("resources.cpu", share(&old.cpu), share(cpu));
    changes.value("resources.pids", &old.pids, pids);
}

fn security_changes(changes: &mut Changes, old: &Security, new: &Security) {
    let Security { add_capabilities, drop_capabilities } = new;
    let add = (list(&old.add_capabilities), list(add_capabilities));
    let drop = (list(&old.drop_capabilities), list(drop_capabilities));
    changes.optional("security.add_capabilities", Some(add.0), Some(add.1));
    changes.optional("security.drop_capabilities", Some(drop.0), Some(drop.1));
}

/// A probe as a person says it.
pub(crate) fn probe_text(probe: &Probe) -> String {
    match probe {
        Probe::Http { port, path, status: Some(status) } => format!("GET :{port}{path} is {status}"),
        Probe::Http { port, path, status: None } => format!("GET :{port}{path}"),
        Probe::Tcp { port } => format!("connect :{port}"),
        Probe::Command { argv, .. } => format!("run {}", words(argv)),
    }
}

/// Arguments as JSON: unlike a shell line, it is never ambiguous.
pub(crate) fn words(argv: &[String]) -> String {
    serde_json::to_string(argv).expect("strings always print as JSON")
}

fn list<T: Display>(items: &BTreeSet<T>) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(", "))
}

/// A text as JSON, cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    // A page-long value would bury the rest of the plan.
    const CHARS_MAX: usize = 80;
    let mut shown: String = text.chars().take(CHARS_MAX).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    serde_json::to_string(&shown).expect("a string always prints as JSON")
}
