//! Scenarios: a stack folder and what comes of it, in one file each.
//!
//! `tests/scenarios/NAME.hcl` holds directives (`#: env prod`, `#: var name=text`, `#: env-var name=text`,
//! `#: file path=text`), one or more files (`#: hcl path` begins another), and the outcome after `#: expect`. With
//! `KILN_BLESS=1` in the environment outcomes are written instead of compared; look at the difference before committing.

#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use kiln_config::{MemoryFiles, RawOrigin, RawValue, Request, SourceSet, load};
use kiln_model::Timestamp;
use kiln_model::stack::Stack;

struct Scenario {
    sources: SourceSet,
    env: String,
    variables: BTreeMap<String, RawValue>,
    files: MemoryFiles,
    expected: String,
    /// All up to the outcome.
    head: String,
}

fn parse(text: &str) -> Scenario {
    let (head, expected) = text.split_once("#: expect\n").unwrap_or((text, ""));
    let (mut env, mut variables, mut files) = ("dev".to_owned(), BTreeMap::new(), MemoryFiles::default());
    let mut sources: Vec<(String, String)> = vec![("stack.hcl".to_owned(), String::new())];
    for line in head.lines() {
        let Some(directive) = line.strip_prefix("#: ") else {
            sources.last_mut().unwrap().1.push_str(line);
            sources.last_mut().unwrap().1.push('\n');
            continue;
        };
        let (word, rest) = directive.split_once(' ').unwrap();
        let pair = || rest.split_once('=').unwrap();
        let raw = |origin| RawValue { text: pair().1.to_owned(), origin };
        match word {
            "env" => env = rest.to_owned(),
            "var" => drop(variables.insert(pair().0.to_owned(), raw(RawOrigin::Flag))),
            "env-var" => {
                variables.insert(pair().0.to_owned(), raw(RawOrigin::EnvironmentVariable));
            }
            "sealed" => drop(variables.insert(pair().0.to_owned(), raw(RawOrigin::Release))),
            "file" => {
                files.0.insert(pair().0.to_owned(), pair().1.replace("\\n", "\n").into_bytes());
            }
            "hcl" => sources.push((rest.to_owned(), String::new())),
            other => panic!("unknown directive {other}"),
        }
    }
    let expected = expected.lines().map(|l| l.strip_prefix("# ").unwrap_or(l.trim_start_matches('#')));
    Scenario {
        sources: sources.into_iter().filter(|(_, t)| !t.trim().is_empty()).collect(),
        env,
        variables,
        files,
        expected: expected.fold(String::new(), |all, line| all + line + "\n"),
        head: head.to_owned(),
    }
}

fn outcome(scenario: &Scenario) -> String {
    let request = Request {
        env: scenario.env.parse().unwrap(),
        variables: scenario.variables.clone(),
        files: &scenario.files,
        // 2026-01-02T03:04:05Z
        lock_time: Timestamp(1_767_323_045_000),
    };
    let loaded = load(&scenario.sources, &request);
    let mut out = String::new();
    for diagnostic in &loaded.diagnostics {
        out.push_str(&diagnostic.render(&scenario.sources, false));
        out.push('\n');
    }
    match &loaded.stack {
        Some(stack) => out.push_str(&summary(stack)),
        None => assert!(loaded.has_errors(), "no stack, and nobody said why"),
    }
    out.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n") + "\n"
}

/// What can differ between scenarios, one line each.
fn summary(stack: &Stack) -> String {
    let mut out = format!("stack {} in {}\n", stack.name, stack.env);
    for (name, base) in &stack.bases {
        let _ = writeln!(out, "base {name}: {base:?}");
    }
    for (name, image) in &stack.images {
        let _ = writeln!(out, "image {name}: {image:?}");
    }
    for (name, rules) in &stack.registries {
        let _ = writeln!(out, "registry {name}: {rules:?}");
    }
    for (name, secret) in &stack.secrets {
        let _ = writeln!(out, "secret {name}: {secret:?}");
    }
    for name in &stack.volumes {
        let _ = writeln!(out, "volume {name}");
    }
    for (name, service) in &stack.services {
        let _ = writeln!(out, "service {name}: {service:?}");
    }
    for (name, route) in &stack.routes {
        let _ =
            writeln!(out, "route {name}: {} {:?} {} -> {:?}", route.listen, route.host, route.path, route.to);
    }
    for (name, ty) in &stack.holes {
        let _ = writeln!(out, "hole {name}: {ty} = {}", stack.bound.get(name).map_or("(left out)", |v| v));
    }
    for (name, webhook) in &stack.webhooks {
        let _ = writeln!(out, "notify {name} {webhook:?}");
    }
    if stack.gates != Default::default() {
        let _ = writeln!(out, "gates {:?}", stack.gates);
    }
    for (name, value) in &stack.given {
        let _ = writeln!(out, "given {name} = {}", value.as_deref().unwrap_or("(left out)"));
    }
    out
}

fn scenarios() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut all: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    all.retain(|p| p.extension().is_some_and(|e| e == "hcl"));
    all.sort();
    all
}

#[test]
fn every_scenario_has_its_outcome() {
    let bless = std::env::var_os("KILN_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut errors = 0;
    for path in scenarios() {
        let scenario = parse(&std::fs::read_to_string(&path).unwrap());
        let found = outcome(&scenario);
        assert!(!found.contains("hunter2"), "{} shows a secret", path.display());
        errors += usize::from(found.contains("error["));
        if found == scenario.expected {
            continue;
        }
        if bless {
            let lines = found.lines().map(|l| if l.is_empty() { "#\n".into() } else { format!("# {l}\n") });
            let text = format!("{}#: expect\n{}", scenario.head, lines.collect::<String>());
            std::fs::write(&path, text).unwrap();
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            wrong.push(format!("== {name}\n-- expected\n{}-- found\n{found}", scenario.expected));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(errors >= 60, "only {errors} scenarios are errors");
}
