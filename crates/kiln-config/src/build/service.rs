//! Services, workers and jobs.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::instance::{HealthCheck, Limits, Probe, Security, StopPolicy, VolumeMount};
use kiln_model::service::ServiceKind;
use kiln_model::stack::ServiceDefinition;
use kiln_model::{ByteSize, ImageName, Millis, PortName, SecretName, ServiceName};

use super::checks::Check;
use super::image::{Images, request_path, user};
use super::route::default_port;
use super::{Instance, instances, rollout, steps};
use crate::diagnostic::Problem;
use crate::order;
use crate::reader::{Context, Reader, absolute_path, positive_size};
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::value::{Kind, Value};

/// More instances of one service than this are a slip of a finger.
pub(super) const REPLICAS_MAX: u32 = 10_000;

/// Capabilities of Linux (capabilities(7), kernel 6.18), without the prefix.
const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// What a program can be asked to stop with; SIGKILL is what follows.
const SIGNALS: [&str; 8] =
    ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGRTMIN+3"];

/// The services, workers and jobs of a stack.
pub(super) struct Services {
    pub(super) definitions: BTreeMap<ServiceName, ServiceDefinition>,
}

/// Where a service is, and what it says about the order of creation.
struct Place {
    header: Span,
    depends_on: BTreeSet<ServiceName>,
}

pub(super) fn services(context: &Context<'_>, images: &mut Images) -> Services {
    let mut definitions = BTreeMap::new();
    let mut places: BTreeMap<ServiceName, Place> = BTreeMap::new();
    let (mut ports, mut all_checks) = (TestPorts::default(), Vec::new());
    for (kind, word) in
        [(ServiceKind::Service, "service"), (ServiceKind::Worker, "worker"), (ServiceKind::Job, "job")]
    {
        for instance in instances(context, word) {
            let Some(name): Option<ServiceName> = context.name(&instance.name, instance.declared.name_span)
            else {
                continue;
            };
            let header = instance.declared.block.header();
            if let Some(other) = places.get(&name) {
                let message = format!("two blocks make the service \"{name}\"");
                context
                    .report(Problem::new("duplicate", header, message).also(other.header, "the other one"));
                continue;
            }
            let (read, uses) = instance.read(context, |r| definition(r, &name, kind));
            let (definition, depends_on, checks) = read;
            places.insert(name.clone(), Place { header, depends_on: depends_on.clone() });
            let Some(mut definition) = definition else {
                ports.is_partial = true;
                continue;
            };
            definition.uses = uses;
            ports.note(context, &instance, &definition);
            for check in checks {
                all_checks.push((check.header, depends_on.clone(), check.job(&definition)));
            }
            definitions.insert(name, definition);
        }
    }
    for (header, depends_on, (name, job)) in all_checks {
        if let Some(other) = places.get(&name) {
            let message = format!("this check is the job \"{name}\", and there is a block of that name");
            context.report(Problem::new("duplicate", header, message).also(other.header, "the other one"));
            continue;
        }
        places.insert(name.clone(), Place { header, depends_on });
        definitions.insert(name, job);
    }
    set_order(context, &mut definitions, &places);
    ports.fill(context, images);
    Services { definitions }
}

/// Orders creation. `depends_on` may not go in a circle; of services that call each other neither can be first.
fn set_order(
    context: &Context<'_>,
    definitions: &mut BTreeMap<ServiceName, ServiceDefinition>,
    places: &BTreeMap<ServiceName, Place>,
) {
    let explicit: BTreeMap<&ServiceName, &BTreeSet<ServiceName>> =
        places.iter().map(|(name, place)| (name, &place.depends_on)).collect();
    for cycle in order::cycles(&explicit) {
        let names: Vec<&str> = cycle.iter().map(|n| n.as_str()).chain([cycle[0].as_str()]).collect();
        let message = format!("\"{}\" depends on itself: {}", names[0], names.join(" -> "));
        let mut problem = Problem::new("cycle", places[&cycle[0]].header, message);
        for name in &cycle[1..] {
            problem = problem.also(places[name].header, "on the way");
        }
        context.report(problem.help("one `depends_on` must go"));
    }
    let all: BTreeMap<ServiceName, BTreeSet<ServiceName>> = definitions
        .iter()
        .map(|(name, d)| (name.clone(), d.uses.union(&places[name].depends_on).cloned().collect()))
        .collect();
    let all_refs = all.iter().collect();
    let groups = order::groups(&all_refs);
    for (name, definition) in definitions.iter_mut() {
        let mut after = places[name].depends_on.clone();
        let apart = |other: &&ServiceName| *other != name && groups.get(*other) != groups.get(name);
        after.extend(definition.uses.iter().filter(apart).cloned());
        definition.after = after;
    }
    for (name, job) in steps::order_jobs(definitions) {
        let message =
            format!("\"{job}\" depends on \"{name}\", which a step of \"{name}\" runs before it is there");
        let problem = Problem::new("cycle", places[&name].header, message);
        let help = "the `depends_on` must go, or the step comes after the new instances have the requests";
        context.report(problem.also(places[&job].header, "the job").help(help));
    }
}

/// The ports of services by image: what a test without a port asks.
#[derive(Default)]
struct TestPorts {
    found: BTreeMap<ImageName, BTreeMap<u16, Span>>,
    /// Ports that an environment decides can't reach a test.
    decided: BTreeMap<ImageName, Span>,
    /// A service could not be read: which image it uses, and where it listens, is not known.
    is_partial: bool,
}

impl TestPorts {
    fn note(&mut self, context: &Context<'_>, instance: &Instance<'_>, definition: &ServiceDefinition) {
        let Some(port) = default_port(&definition.ports) else { return };
        let blocks = instance.declared.block.body.blocks.iter();
        let mut blocks =
            blocks.filter(|b| &*b.kind == "port" && b.labels.first().is_some_and(|l| &*l.0 == port.as_str()));
        let Some(block) = blocks.next() else { return };
        let decided = |expr| context.graph.is_decided(context.resolver, expr);
        let number = block.body.attributes.iter().any(|a| decided(&a.expr));
        let image = crate::declare::attribute(&instance.declared.block.body, "image");
        let image = image.is_some_and(|a| decided(&a.expr));
        if number || image || instance.declared.for_each.is_some_and(decided) {
            self.decided.insert(definition.image.clone(), block.header());
            return;
        }
        let numbers = self.found.entry(definition.image.clone()).or_default();
        numbers.insert(definition.ports[&port], block.header());
    }

    fn fill(&self, context: &Context<'_>, images: &mut Images) {
        for (image, test, span) in std::mem::take(&mut images.portless) {
            let found = self.found.get(&image);
            let problem = |why: &str| {
                Problem::new("no-port", span, format!("the test does not say which port it asks, and {why}"))
                    .help("set `port`, or `expose` one port in the image")
            };
            match found.map(|f| f.iter().collect::<Vec<_>>()).as_deref() {
                Some([(number, _)]) => images.set_port(&image, test, **number),
                Some([(_, first), (_, second), ..]) => {
                    let problem = problem("services that use the image listen on different ones");
                    context.report(problem.also(**first, "one").also(**second, "another"));
                }
                _ => match self.decided.get(&image) {
                    Some(at) => {
                        let problem = problem("an environment decides which one the service has");
                        context.report(problem.also(*at, "decided here"));
                    }
                    None if self.is_partial => {}
                    None => context.report(problem("no service that uses the image has one")),
                },
            }
        }
    }
}

type Read = (Option<ServiceDefinition>, BTreeSet<ServiceName>, Vec<Check>);

/// Reads a block, with what it depends on and what its checks run.
fn definition(reader: Reader<'_>, name: &ServiceName, kind: ServiceKind) -> Read {
    let depends_on = depends_on(reader);
    let image = reader.reference("image", &["image"], "image.NAME");
    let image: Option<ImageName> = image.and_then(|(reference, _)| reference.name.parse().ok());
    let ports = ports(reader);
    let health = health(reader, &ports);
    let rollout::Rollout { strategy, bounds, interludes, checks } =
        rollout::rollout(reader, name, kind, &ports);
    let stop = reader.block("stop");
    let replicas = if kind == ServiceKind::Job { Some(1) } else { reader.int("replicas", 0..=REPLICAS_MAX) };
    rollout::refuse_small_surge(reader, &strategy, replicas.unwrap_or(1));
    let volumes = volumes(reader);
    let secrets = secrets(reader);
    let scratch = scratch(reader);
    refuse_overlap(reader, &volumes, &secrets, &scratch);
    let rest = |image| ServiceDefinition {
        kind,
        image,
        entrypoint: reader.argv("entrypoint"),
        command: reader.argv("command"),
        env: reader.env("env").unwrap_or_default(),
        workdir: reader.absolute_path("workdir"),
        user: user(reader, "user"),
        secrets,
        volumes,
        scratch,
        ports,
        health,
        limits: limits(reader),
        security: security(reader),
        stop_signal: stop.and_then(|s| s.parsed("signal", "\"SIGTERM\"", signal)),
        stop_grace: stop.and_then(|s| s.millis("grace")).unwrap_or(StopPolicy::default().grace),
        uses: BTreeSet::new(),
        after: BTreeSet::new(),
        replicas: replicas.unwrap_or(1),
        strategy,
        bounds,
        interludes,
    };
    // Without an image the rest is still read: all errors at once.
    let name = image.clone().or_else(|| "missing".parse().ok());
    let definition = name.map(rest).filter(|_| image.is_some());
    (definition, depends_on, checks)
}

fn depends_on(reader: Reader<'_>) -> BTreeSet<ServiceName> {
    let mut out = BTreeSet::new();
    let Some((value, expr)) = reader.value("depends_on") else { return out };
    let Some(seq) = value.as_seq() else {
        let message =
            format!("`depends_on` of {}: expected a list, found {}", reader.owner, value.describe());
        reader.report(
            Problem::new("wrong-type", expr.span, message).help("write `depends_on = [service.NAME]`"),
        );
        return out;
    };
    for item in &seq.items {
        let span = if item.origin.file == expr.span.file { item.origin } else { expr.span };
        let inside = span.start >= expr.span.start && span.end <= expr.span.end;
        let span = if inside { span } else { expr.span };
        // All instances of a block with `for_each`, when none is named.
        let items: Vec<&Value> = match &item.kind {
            Kind::Map(map) => map.items.values().collect(),
            _ => vec![item],
        };
        for item in items {
            let kinds = ["service", "worker", "job"];
            let reference = reader.expect_reference("depends_on", item, span, &kinds, "service.NAME");
            out.extend(reference.and_then(|r| r.name.parse().ok()));
        }
    }
    out
}

fn ports(reader: Reader<'_>) -> BTreeMap<PortName, u16> {
    let mut out: BTreeMap<PortName, u16> = BTreeMap::new();
    let mut numbers: BTreeMap<u16, Span> = BTreeMap::new();
    for block in reader.blocks("port") {
        let Some((label, span)) = block.labels.first() else { continue };
        let name: Option<PortName> = reader.context.name(label, *span);
        if &**label == "url" {
            let message = "a port can't be named `url`: that is the service's address";
            reader.report(Problem::new("invalid-name", *span, message));
        }
        let number = reader.within(block).int("number", 1..=65_535).map(|n| n as u16);
        let Some((name, number)) = name.zip(number) else { continue };
        if let Some(first) = numbers.insert(number, block.header()) {
            let message = format!("two ports of {} have the number {number}", reader.owner);
            reader.report(Problem::new("duplicate", block.header(), message).also(first, "the other one"));
        }
        out.insert(name, number);
    }
    out
}

fn health(reader: Reader<'_>, ports: &BTreeMap<PortName, u16>) -> Option<HealthCheck> {
    let health = reader.block("health")?;
    let tcp = health.bool("tcp").unwrap_or(false);
    let asked = [health.has("http"), tcp, health.has("command")];
    if asked.iter().filter(|a| **a).count() != 1 {
        let message = match asked.contains(&true) {
            false => format!("`health` of {} asks nothing", reader.owner),
            true => format!("`health` of {} asks several things at once", reader.owner),
        };
        let help = "set one of `http = \"/path\"`, `tcp = true` and `command = […]`";
        health.report(Problem::new("missing-attribute", health.header, message).help(help));
        return None;
    }
    for (name, allowed) in [("status", asked[0]), ("port", !asked[2])] {
        if health.has(name) && !allowed {
            let message = format!("`{name}` means nothing for this kind of probe");
            health.report(Problem::new("wrong-value", health.span(name), message));
        }
    }
    let probe = if asked[2] {
        Probe::Command { argv: health.argv("command")?, expected: None }
    } else {
        let port = health_port(health, ports);
        match asked[0] {
            true => {
                let path = health.parsed("http", "\"/healthz\"", request_path);
                let status = health.int("status", 100..=599).map(|n| n as u16);
                Probe::Http { port: port?, path: path?, status }
            }
            false => Probe::Tcp { port: port? },
        }
    };
    Some(HealthCheck {
        probe,
        // Often enough to see a death before most users do; each probe costs a connection.
        interval: health.some_millis("interval").unwrap_or(Millis::from_secs(2)),
        timeout: health.some_millis("timeout").unwrap_or(Millis::from_secs(1)),
        // A runtime that compiles at its start takes tens of seconds.
        startup: health.some_millis("startup").unwrap_or(Millis::from_secs(60)),
        healthy_after: health.int("healthy_after", 1..=100).unwrap_or(1),
        // One lost probe is noise, as Kubernetes has it.
        unhealthy_after: health.int("unhealthy_after", 1..=100).unwrap_or(3),
        closed_ports: BTreeSet::new(),
    })
}

fn health_port(health: Reader<'_>, ports: &BTreeMap<PortName, u16>) -> Option<u16> {
    let Some((value, expr)) = health.value("port") else {
        if health.has("port") {
            return None;
        }
        let Some(port) = default_port(ports) else {
            let message = format!("`health` of {} does not say which port it asks", health.owner);
            let help = "name a port `http`, declare one port only, or set `port = \"NAME\"`";
            health.report(Problem::new("no-port", health.header, message).help(help));
            return None;
        };
        return ports.get(&port).copied();
    };
    match &value.kind {
        Kind::String(name) if name.parse::<u16>().is_err() => {
            let found = ports.iter().find(|(port, _)| port.as_str() == &**name);
            if found.is_none() {
                let message = format!("{} has no port \"{name}\"", health.owner);
                let known = ports.keys().map(PortName::as_str);
                let problem = Problem::new("no-port", expr.span, message);
                health.report(problem.maybe_help(did_you_mean(name, known)));
            }
            found.map(|(_, number)| *number)
        }
        _ => health.int("port", 1..=65_535).map(|n| n as u16),
    }
}

fn limits(reader: Reader<'_>) -> Limits {
    let Some(resources) = reader.block("resources") else { return Limits::default() };
    Limits {
        memory: resources.size("memory"),
        cpu: resources.cpu("cpu"),
        pids: resources.int("pids", 1..=4_194_304).unwrap_or(Limits::PIDS_DEFAULT),
    }
}

fn security(reader: Reader<'_>) -> Security {
    let Some(security) = reader.block("security") else { return Security::default() };
    let capabilities = |name: &str, all: bool| {
        let mut out = BTreeSet::new();
        for text in security.strings(name).unwrap_or_default() {
            let upper = text.to_ascii_uppercase();
            let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
            if CAPABILITIES.contains(&bare) || all && bare == "ALL" {
                out.insert(bare.to_owned());
                continue;
            }
            let message = match bare {
                "ALL" => "adding all capabilities is not supported: name those that are needed".to_owned(),
                _ => format!("there is no capability \"{text}\""),
            };
            let problem = Problem::new("wrong-value", security.span(name), message);
            security.report(problem.maybe_help(did_you_mean(bare, CAPABILITIES.into_iter())));
        }
        out
    };
    Security {
        add_capabilities: capabilities("add_capabilities", false),
        drop_capabilities: capabilities("drop_capabilities", true),
    }
}

/// Checks a signal's name.
pub(super) fn signal(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    match SIGNALS.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(format!("\"{text}\" is no signal to stop with; there are {}", SIGNALS.join(", "))),
    }
}

/// Reads a map whose keys are absolute paths.
fn by_path<T>(
    reader: Reader<'_>,
    name: &str,
    what: &str,
    mut read: impl FnMut(&Value, Span) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut out = BTreeMap::new();
    for (key, value, span) in reader.entries(name, what).unwrap_or_default() {
        let path = match absolute_path(&key) {
            Ok(path) if path != "/" => path,
            Ok(_) => {
                let message = format!("`{name}` of {}: the root itself can't be covered", reader.owner);
                reader.report(Problem::new("wrong-value", span, message));
                continue;
            }
            Err(reason) => {
                let message = format!("`{name}` of {}: {reason}", reader.owner);
                reader.report(Problem::new("wrong-value", span, message));
                continue;
            }
        };
        if let Some(read) = read(&value, span) {
            out.insert(path, read);
        }
    }
    out
}

fn secrets(reader: Reader<'_>) -> BTreeMap<String, SecretName> {
    by_path(reader, "secrets", "a map of path to secret", |value, span| {
        let reference = reader.expect_reference("secrets", value, span, &["secret"], "secret.NAME")?;
        reference.name.parse().ok()
    })
}

fn volumes(reader: Reader<'_>) -> BTreeMap<String, VolumeMount> {
    by_path(reader, "volumes", "a map of path to volume", |value, span| {
        let (volume, read_only) = match value.as_map() {
            Some(map) if map.items.contains_key("volume") => {
                let read_only = map.items.get("read_only").map(|v| &v.kind);
                let unknown = map.items.keys().find(|k| !matches!(&***k, "volume" | "read_only"));
                if unknown.is_some() || !matches!(read_only, None | Some(Kind::Bool(_))) {
                    let message = format!(
                        "`volumes` of {}: a volume takes `volume` and `read_only`, which is true or false",
                        reader.owner
                    );
                    reader.report(Problem::new("wrong-type", span, message));
                    return None;
                }
                (&map.items["volume"], matches!(read_only, Some(Kind::Bool(true))))
            }
            _ => (value, false),
        };
        let reference = reader.expect_reference("volumes", volume, span, &["volume"], "volume.NAME")?;
        Some(VolumeMount { volume: reference.name.parse().ok()?, read_only })
    })
}

fn scratch(reader: Reader<'_>) -> BTreeMap<String, ByteSize> {
    by_path(reader, "scratch", "a map of path to size", |value, span| {
        let size = match value.as_str() {
            Some(text) => positive_size(text),
            None => Err(format!("expected a size like \"64MiB\", found {}", value.describe())),
        };
        size.map_err(|reason| {
            let message = format!("`scratch` of {}: {reason}", reader.owner);
            reader.report(Problem::new("wrong-type", span, message));
        })
        .ok()
    })
}

/// Two things at one path would hide each other.
fn refuse_overlap(
    reader: Reader<'_>,
    volumes: &BTreeMap<String, VolumeMount>,
    secrets: &BTreeMap<String, SecretName>,
    scratch: &BTreeMap<String, ByteSize>,
) {
    let mut taken: BTreeMap<&String, &str> = BTreeMap::new();
    let all = volumes.keys().map(|p| (p, "volumes"));
    let all = all.chain(secrets.keys().map(|p| (p, "secrets"))).chain(scratch.keys().map(|p| (p, "scratch")));
    for (path, name) in all {
        if let Some(first) = taken.insert(path, name) {
            let message = format!("{path} of {} is in `{first}` and in `{name}`", reader.owner);
            let problem = Problem::new("duplicate", reader.span(name), message);
            reader.report(problem.also(reader.span(first), "here too"));
        }
    }
}
