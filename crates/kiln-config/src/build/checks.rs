//! The `check` of a step: a command, or a question over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::ask::{Again, Ask, Method, Whom};
use kiln_model::service::{Gate, RolloutBounds, ServiceKind, Strategy};
use kiln_model::stack::ServiceDefinition;
use kiln_model::{Millis, PortName, ServiceName};

use super::access::access;
use super::image::request_path;
use super::outside::url;
use super::rollout::{STEP_MAX, bounded};
use super::route::default_port;
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::source::Span;
use crate::suggest::did_you_mean;

/// How long a command may take: it only looks.
const CHECK_WITHIN: Millis = Millis::from_secs(60);

/// How long an answer may take: as long as a measurement's.
const ASK_WITHIN: Millis = Millis::from_secs(10);

/// How long after an attempt that failed the next one begins.
const INTERVAL: Millis = Millis::from_secs(5);

/// Each attempt is an entry of the log.
const ATTEMPTS_MAX: u32 = 1000;

/// More than this is no text that somebody looks for, and it is kept with each rollout.
const CONTAINS_CHARS_MAX: usize = 1000;

/// A command that decides whether a rollout goes on. It runs as a job made of its service.
pub(super) struct Check {
    job: ServiceName,
    argv: Vec<String>,
    pub(super) header: Span,
}

impl Check {
    /// The job: as the service, but without its ports, and reading its volumes only.
    pub(super) fn job(self, service: &ServiceDefinition) -> (ServiceName, ServiceDefinition) {
        let mut volumes = service.volumes.clone();
        volumes.values_mut().for_each(|mount| mount.read_only = true);
        let job = ServiceDefinition {
            kind: ServiceKind::Job,
            entrypoint: Some(Vec::new()),
            command: Some(self.argv),
            ports: BTreeMap::new(),
            health: None,
            volumes,
            replicas: 1,
            strategy: Strategy::StopThenStart,
            bounds: RolloutBounds::default(),
            interludes: Arc::default(),
            ..service.clone()
        };
        (self.job, job)
    }
}

/// What a check is made of that its block does not say.
pub(super) struct Place<'a> {
    pub(super) service: &'a ServiceName,
    pub(super) ports: &'a BTreeMap<PortName, u16>,
    /// Whether new instances are healthy where it stands.
    pub(super) has_new: bool,
    /// How many commands were checks before.
    pub(super) commands: usize,
}

/// Reads a check; beside it the command that it runs, if it is one.
pub(super) fn check(block: Reader<'_>, place: &Place<'_>) -> Option<(Gate, Option<Check>)> {
    let http = block.block("http");
    if http.is_some() == block.has("exec") {
        let message = match http {
            Some(_) => "a `check` has either `exec` or `http`",
            None => "a `check` asks nothing",
        };
        let help = "as in `exec = [\"/app/smoke\"]`, or `http { path = \"/ready\" }`";
        block.report(Problem::new("wrong-value", block.header, message).help(help));
        return None;
    }
    let default = if http.is_some() { ASK_WITHIN } else { CHECK_WITHIN };
    let timeout = bounded(block, "timeout").unwrap_or(default);
    let again = again(block, timeout);
    match http {
        Some(http) => Some((Gate::Ask(Arc::new(ask(http, place, timeout, again)?)), None)),
        None => command(block, place, timeout, again).map(|(gate, check)| (gate, Some(check))),
    }
}

fn again(block: Reader<'_>, timeout: Millis) -> Again {
    let attempts = block.int("attempts", 1..=ATTEMPTS_MAX).unwrap_or(1);
    let interval = bounded(block, "interval");
    if attempts == 1 {
        if block.has("interval") {
            let help = "as in `attempts = 5`, or leave `interval` out";
            wrong(block, block.span("interval"), "`interval` is between attempts, and there is one", help);
        }
        return Again::default();
    }
    let interval = interval.unwrap_or(INTERVAL);
    let all = interval.0.saturating_add(timeout.0).saturating_mul(u64::from(attempts));
    if all > STEP_MAX.0 {
        let message = format!("all attempts together may take {}, and {STEP_MAX} are the most", Millis(all));
        wrong(block, block.span("attempts"), &message, "try less often, or with less time between");
    }
    Again { attempts, interval }
}

fn command(block: Reader<'_>, place: &Place<'_>, within: Millis, again: Again) -> Option<(Gate, Check)> {
    let argv = block.argv("exec");
    let name = format!("{}-check-{}", place.service, place.commands + 1);
    let job: ServiceName = match name.parse() {
        Ok(job) => job,
        Err(error) => {
            let message = format!("a check is a job of its own, and can't be \"{name}\": {error}");
            block.report(Problem::new("wrong-value", block.header, message));
            return None;
        }
    };
    let gate = Gate::Check { job: job.clone(), within, again };
    Some((gate, Check { job, argv: argv?, header: block.header }))
}

fn ask(http: Reader<'_>, place: &Place<'_>, timeout: Millis, again: Again) -> Option<Ask> {
    let method = http.parsed("method", "\"GET\"", |text| {
        Method::of_word(text).ok_or_else(|| {
            let known = Method::ALL.map(Method::word);
            did_you_mean(&text.to_ascii_uppercase(), known.into_iter())
                .unwrap_or_else(|| format!("there are \"{}\"", known.join("\", \"")))
        })
    });
    let is_unknown = http.has("method") && method.is_none();
    let method = method.unwrap_or(Method::Get);
    let contains = http.parsed("contains", "\"ready\"", |text| match text.chars().count() {
        0 => Err("every answer contains nothing".to_owned()),
        1..=CONTAINS_CHARS_MAX => Ok(text.to_owned()),
        _ => Err(format!("it has more than {CONTAINS_CHARS_MAX} characters")),
    });
    if method == Method::Head && http.has("contains") {
        let help = "use \"GET\", or leave `contains` out";
        wrong(http, http.span("contains"), "an answer to HEAD has no body", help);
    }
    let status = http.int("status", 100..=599).map(|status| status as u16);
    let whom = whom(http, place).filter(|_| !is_unknown)?;
    let url = match &whom {
        Whom::Url(url) => url.as_str(),
        Whom::Instances { .. } => "http://",
    };
    let access = access(http, Some(url))?;
    Some(Ask { service: place.service.clone(), whom, method, status, contains, timeout, again, access })
}

fn whom(http: Reader<'_>, place: &Place<'_>) -> Option<Whom> {
    if http.has("url") == http.has("path") {
        let help =
            "as in `url = \"https://shop.example/ready\"`, or `path = \"/ready\"` for each new instance";
        wrong(http, http.header, "`http` asks either a `url` or a `path`", help);
        return None;
    }
    if http.has("url") {
        if http.has("port") {
            wrong(
                http,
                http.span("port"),
                "`port` is one of the service's, for a `path`",
                "write it into the `url`",
            );
        }
        return http.parsed("url", "\"https://shop.example/ready\"", address).map(Whom::Url);
    }
    let path = http.parsed("path", "\"/ready\"", request_path);
    if !place.has_new {
        let help = "put it after `step { wait = \"healthy\" }`, or ask a `url`";
        wrong(http, http.span("path"), "no new instance is healthy here, and a `path` asks those", help);
    }
    Some(Whom::Instances { port: port(http, place.service, place.ports)?, path: path? })
}

/// The port of a service that a block asks.
pub(super) fn port(
    http: Reader<'_>,
    service: &ServiceName,
    ports: &BTreeMap<PortName, u16>,
) -> Option<PortName> {
    if !http.has("port") {
        let found = default_port(ports);
        if found.is_none() {
            let (message, help) = match ports.is_empty() {
                true => {
                    (format!("{service} has no port that could be asked"), "declare a `port`, or ask a `url`")
                }
                false => (
                    format!("it is not said which port of {service} is asked"),
                    "name a port `http`, or set `port = \"NAME\"`",
                ),
            };
            http.report(Problem::new("no-port", http.header, message).help(help));
        }
        return found;
    }
    let name = http.string("port")?;
    let found = ports.keys().find(|port| port.as_str() == name).cloned();
    if found.is_none() {
        let known = ports.keys().map(PortName::as_str);
        let problem = Problem::new("no-port", http.span("port"), format!("{service} has no port \"{name}\""));
        http.report(problem.maybe_help(did_you_mean(&name, known)));
    }
    found
}

/// As the URLs of others, but with a query.
fn address(text: &str) -> Result<String, String> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    url(place)?;
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"<>#\\^`{|}".contains(&b);
    if !query.bytes().all(is_plain) {
        return Err("its query has characters that must be written as `%20`".to_owned());
    }
    Ok(text.to_owned())
}

fn wrong(reader: Reader<'_>, span: Span, message: &str, help: &str) {
    reader.report(Problem::new("wrong-value", span, message).help(help));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_query() {
        for fine in ["http://127.0.0.1:9000/ready?deep=1&x=%20", "https://shop.example"] {
            assert_eq!(address(fine).as_deref(), Ok(fine));
        }
        for wrong in ["/ready", "http://h/?a b", "http://h/?a#b", "http://u:p@h/", "ftp://h"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
