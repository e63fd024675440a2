//! Runs the fuzz targets: tests that mutate their corpus for as long as they are told.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::cargo;

/// Every target: its name, its crate, and the test that it is.
const TARGETS: [(&str, &str, &str); 10] = [
    ("layers", "kiln-registry", "image::fuzz::layers"),
    ("documents", "kiln-registry", "image::fuzz::documents"),
    ("requests", "kiln-registry", "server::fuzz::requests"),
    ("dockerfiles", "kiln-bake", "dockerfile::fuzz::dockerfiles"),
    ("packages", "kiln-bake", "debian::fuzz::packages"),
    ("inventories", "kiln-bake", "inventory::fuzz::inventories"),
    ("vulnerabilities", "kiln-bake", "osv::fuzz::vulnerabilities_of_a_database"),
    ("stacks", "kiln-config", "fuzz::stacks"),
    ("heads", "kiln-edge", "fuzz::heads"),
    ("records", "kiln-store", "wire::fuzz::records"),
];

/// What CI gives each target.
const SECONDS: u64 = 60;

/// As many as the smallest machine that CI has cores.
const AT_ONCE: usize = 2;

/// The seed of every run of CI, which shows what a change did, and not what luck found.
const CI_SEED: u64 = 1;

/// What `cargo xtask ci` does: every target, from the same seed each time.
pub(crate) fn ci() -> Result<(), String> {
    run(&["--seed".to_owned(), CI_SEED.to_string()])
}

/// Fuzzes all targets, or those that are named, for so long each: `[TARGET]… [--seconds N] [--seed N]`.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let (mut names, mut seconds, mut seed) = (Vec::new(), SECONDS, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let mut number = || {
            let number = words.next().and_then(|number| number.parse::<u64>().ok());
            number.ok_or_else(|| format!("{word} needs a number"))
        };
        match word.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = Some(number()?),
            name => names.push(name),
        }
    }
    let known = TARGETS.map(|(name, ..)| name);
    if let Some(wrong) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("there is no target {wrong}; there are {}", known.join(", ")));
    }
    let programs = programs()?;
    let wanted = TARGETS.iter().filter(|(name, ..)| names.is_empty() || names.contains(name));
    let queue: Mutex<VecDeque<_>> = Mutex::new(wanted.collect());
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((name, package, test)) = next else { return };
                    if let Err(message) = fuzz(&programs, package, test, (seconds, seed)) {
                        eprintln!("{name}: {message}");
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(format!("found something: {}", failed.join(", "))) }
}

fn fuzz(
    programs: &BTreeMap<String, PathBuf>,
    package: &str,
    test: &str,
    (seconds, seed): (u64, Option<u64>),
) -> Result<(), String> {
    let program = programs.get(package).ok_or_else(|| format!("{package} has no tests"))?;
    let output = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env("KILN_FUZZ_SECONDS", seconds.to_string())
        .envs(seed.map(|seed| ("KILN_FUZZ_SEED", seed.to_string())))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{} can't be run: {error}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let told: Vec<&str> = said.lines().filter(|line| line.contains(" inputs, ")).collect();
    if output.status.success() && !told.is_empty() {
        println!("{}", told.join("\n"));
        return Ok(());
    }
    Err(format!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Builds the unit tests of all crates, as `cargo xtask test` does, and returns each crate's program.
fn programs() -> Result<BTreeMap<String, PathBuf>, String> {
    let words = ["test", "--workspace", "--lib", "--locked", "--no-run", "--message-format=json"];
    let output = cargo::cargo()
        .args(words)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo test: {error}"))?;
    if !output.status.success() {
        return Err("the tests can't be built".into());
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let built = messages.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    let program = |message: serde_json::Value| {
        let program = message["executable"].as_str().map(PathBuf::from)?;
        let package = Path::new(message["manifest_path"].as_str()?).parent()?.file_name()?;
        Some((package.to_str()?.to_owned(), program))
    };
    Ok(built.filter_map(program).collect())
}
