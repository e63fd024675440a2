//! What must hold of an image before it can be released.

use std::collections::BTreeSet;

use kiln_model::Millis;
use kiln_model::instance::{ExpectedRun, Probe};
use kiln_model::recipe::{ExpectedFile, ExpectedPackage, ImageTest, Inspection};

use super::image::{octal_mode, request_path, user};
use crate::diagnostic::Problem;
use crate::functions::compile_pattern;
use crate::reader::Reader;
use crate::source::Span;

/// Most programs answer within a second or two; a test that takes longer than this says so.
const WITHIN_DEFAULT: Millis = Millis::from_secs(30);

/// The blocks that boot the image.
const PROBES: [&str; 3] = ["http", "tcp", "exec"];

/// Returns the test, and whether its port is still open.
pub(super) fn test(
    reader: Reader<'_>,
    name: &str,
    name_span: Span,
    exposed: &[String],
) -> Option<(ImageTest, bool)> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.is_empty() || name.len() > 40 || !name.bytes().all(good) {
        let message =
            format!("`{name}` is not a valid test name: use 1 to 40 letters, digits, `-`, `_` and `.`");
        reader.report(Problem::new("invalid-name", name_span, message));
    }
    let inspection = inspection(reader);
    let found: Vec<&str> = PROBES.into_iter().filter(|kind| reader.block(kind).is_some()).collect();
    let asks = ["file", "package"].into_iter().any(|kind| reader.block(kind).is_some())
        || ["no_root", "no_setuid"].into_iter().any(|name| reader.has(name));
    let (probe, open) = match found[..] {
        [kind] => {
            let (probe, open) = self::probe(reader.block(kind)?, kind, exposed)?;
            (Some(probe), open)
        }
        [] if asks => (None, false),
        _ => {
            let message = match found.len() {
                0 => format!("test \"{name}\" asks nothing"),
                several => format!("test \"{name}\" asks {several} things at once"),
            };
            let help = "give it one block `http { … }`, `tcp { … }` or `exec { … }`, or what is to be seen without a boot: `file`, `package`, `no_root`, `no_setuid`";
            reader.report(Problem::new("missing-block", reader.header, message).help(help));
            return None;
        }
    };
    let closed_ports = closed_ports(reader, &probe);
    let within = found.first().and_then(|kind| reader.block(kind)?.some_millis("within"));
    let test = ImageTest {
        name: name.to_owned(),
        inspection,
        probe,
        closed_ports,
        within: within.unwrap_or(WITHIN_DEFAULT),
        env: reader.env("env").unwrap_or_default(),
        memory: reader.size("memory"),
    };
    Some((test, open))
}

/// Returns what is asked of the boot, and whether its port is still open.
fn probe(reader: Reader<'_>, kind: &str, exposed: &[String]) -> Option<(Probe, bool)> {
    let only_exposed = match exposed {
        [only] => only.strip_suffix("/tcp").and_then(|n| n.parse().ok()),
        _ => None,
    };
    let port: Option<u16> = reader.int("port", 1..=65_535).map(|n| n as u16).or(only_exposed);
    let open = kind != "exec" && port.is_none() && !reader.has("port");
    let port = port.unwrap_or(0);
    let probe = match kind {
        "http" => Probe::Http {
            port,
            path: reader.parsed("path", "\"/\"", request_path).unwrap_or_else(|| "/".into()),
            status: reader.int("status", 100..=599).map(|n| n as u16),
        },
        "tcp" => Probe::Tcp { port },
        _ => Probe::Command { argv: reader.argv("command")?, expected: Some(expected(reader)) },
    };
    Some((probe, open))
}

fn expected(reader: Reader<'_>) -> ExpectedRun {
    let matches = reader.strings("matches").unwrap_or_default();
    for pattern in &matches {
        if let Err(reason) = compile_pattern(pattern) {
            let message = format!("`matches` of {}: {reason}", reader.owner);
            reader.report(Problem::new("wrong-value", reader.span("matches"), message));
        }
    }
    ExpectedRun {
        exit: reader.int("exit", 0..=255).unwrap_or(0) as u8,
        stdout: reader.string("stdout"),
        contains: reader.strings("contains").unwrap_or_default(),
        matches,
    }
}

/// The ports that must be closed, and that a port which is asked for is not among them.
fn closed_ports(reader: Reader<'_>, probe: &Option<Probe>) -> BTreeSet<u16> {
    let wrong = |message: String, help: &str| {
        let problem = Problem::new("wrong-value", reader.span("closed_ports"), message);
        reader.report(problem.help(help));
    };
    let port = |text: String| match text.parse::<u16>() {
        Ok(port) if port > 0 => Some(port),
        _ => {
            wrong(format!("`closed_ports` of {}: {text} is no port", reader.owner), "a port is 1 to 65535");
            None
        }
    };
    let texts = reader.strings("closed_ports").unwrap_or_default();
    let ports: BTreeSet<u16> = texts.into_iter().filter_map(port).collect();
    match probe {
        None if !ports.is_empty() => wrong(
            format!("`closed_ports` of {} says nothing of an image that is not booted", reader.owner),
            "add `http { … }`, `tcp { … }` or `exec { … }`: the ports are looked at once that holds",
        ),
        Some(Probe::Http { port, .. } | Probe::Tcp { port }) if ports.contains(port) => wrong(
            format!("port {port} of {} must answer and be closed at once", reader.owner),
            "leave it out of `closed_ports`",
        ),
        _ => {}
    }
    ports
}

fn inspection(reader: Reader<'_>) -> Inspection {
    Inspection {
        files: reader.blocks("file").filter_map(|block| file(reader.within(block))).collect(),
        packages: reader.blocks("package").filter_map(|block| package(reader.within(block))).collect(),
        no_root: reader.bool("no_root").unwrap_or(false),
        no_setuid: reader.bool("no_setuid").unwrap_or(false),
    }
}

fn file(reader: Reader<'_>) -> Option<ExpectedFile> {
    let path = reader.absolute_path("path");
    let absent = reader.bool("absent").unwrap_or(false);
    let owner = user(reader, "owner");
    // An octal mode has 12 bits.
    let mode = reader.parsed("mode", "\"0644\"", octal_mode).map(|mode| mode as u16);
    // What is not there has no owner and no mode.
    for other in ["owner", "mode"].into_iter().filter(|other| absent && reader.has(other)) {
        let message = format!("what is absent has no `{other}`");
        reader.report(
            Problem::new("wrong-value", reader.span(other), message).help("leave out one of the two"),
        );
    }
    Some(ExpectedFile { path: path?, absent, owner, mode })
}

fn package(reader: Reader<'_>) -> Option<ExpectedPackage> {
    let name = reader.string("name");
    let absent = reader.bool("absent").unwrap_or(false);
    let version = reader.string("version");
    Some(ExpectedPackage { name: name?, absent, version })
}
