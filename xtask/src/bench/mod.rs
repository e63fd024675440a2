//! `cargo xtask bench`: Kiln beside its peers, in the same run on the same machine.
//!
//! Nothing here is asserted: machines are noisy, and what counts is the ratio within one run. Medians are printed.

mod analysis;
mod bake;
mod decide;
mod dockerfile;
mod keep;
mod plan;
mod registry;
mod replace;
mod sbom;
mod start;
mod switch;
mod table;

#[path = "../../../crates/kiln/tests/e2e/load.rs"]
#[allow(dead_code, unreachable_pub)]
mod load;
#[path = "../../../crates/kiln/tests/e2e/machine.rs"]
#[allow(dead_code, unreachable_pub)]
mod machine;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::cargo::{cargo, target};
use table::Table;

type Bench = fn(&mut Table) -> Result<(), String>;

/// Measures what is named, or everything.
pub(crate) fn run(names: &[String]) -> Result<(), String> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|asked| asked == name);
    let known = [
        "build",
        "start",
        "memory",
        "rollback",
        "replace",
        "switch",
        "plan",
        "bake",
        "sbom",
        "dockerfile",
        "registry",
        "keep",
        "analysis",
        "decide",
    ];
    if let Some(other) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no bench `{other}`; there are {}", known.join(", ")));
    }
    let mut table = Table::default();
    // The store, the statistics and the decisions are measured without the program around them.
    let alone = ["keep", "analysis", "decide"];
    if names.is_empty() || names.iter().any(|name| !alone.contains(&name.as_str())) {
        let binary = build(&mut table, wanted("build"))?;
        machine::BINARY.set(binary).map_err(|_| "the binary is named once")?;
    }
    let benches: [(&str, Bench); 13] = [
        ("start", start::instances),
        ("memory", start::memory),
        ("rollback", replace::rollback),
        ("replace", replace::replicas),
        ("switch", switch::run),
        ("plan", plan::run),
        ("bake", bake::run),
        ("sbom", sbom::run),
        ("keep", keep::run),
        ("dockerfile", dockerfile::run),
        ("registry", registry::run),
        ("analysis", analysis::run),
        ("decide", decide::run),
    ];
    for (name, bench) in benches.into_iter().filter(|(name, _)| wanted(name)) {
        println!("> {name}");
        bench(&mut table)?;
    }
    table.print();
    Ok(())
}

/// Builds the release binary; with `from_nothing`, in an empty target folder and with its time in the table.
fn build(table: &mut Table, from_nothing: bool) -> Result<PathBuf, String> {
    let build = |folder: &std::path::Path| {
        let mut command = cargo();
        command.args(["build", "--release", "--locked", "--package", "kiln", "--target-dir"]).arg(folder);
        run_command(&mut command)
    };
    if from_nothing {
        let empty = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
        let begin = Instant::now();
        build(empty.path())?;
        table.row("cargo build --release from nothing", begin.elapsed(), None);
    }
    build(&target())?;
    Ok(target().join("release/kiln"))
}

fn run_command(command: &mut Command) -> Result<(), String> {
    let status =
        command.status().map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
    if status.success() { Ok(()) } else { Err(format!("{:?} failed", command.get_program())) }
}

/// Whether a peer is installed; a row without it says so.
fn installed(program: &str) -> bool {
    Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output()
        .is_ok_and(|output| output.status.success())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
