//! Seeded histories side by side on all processors: those that the tests run, or any others.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::cargo::{cargo, target};

/// What a change of the core or of the controller should pass before a release.
const HISTORIES: u64 = 100_000;

/// Processes take as many histories at a time: so few that all end at about the same moment.
const PORTION: u64 = 1_000;

/// Runs histories; the first that breaks an invariant is printed with its last lines.
pub(crate) fn run(words: &[String]) -> Result<(), String> {
    let number = |at: usize, default: u64| match words.get(at) {
        Some(word) => word.replace('_', "").parse().map_err(|_| format!("`{word}` is not a number")),
        None => Ok(default),
    };
    let (count, from) = (number(0, HISTORIES)?, number(1, 0)?);
    let mut build = cargo();
    build.args(["build", "--locked", "--package", "sim", "--target-dir"]).arg(target());
    let status = build.status().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !status.success() {
        return Err("the simulation does not build".into());
    }
    let begin = Instant::now();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut waiting = (from..from + count).step_by(PORTION as usize);
    let mut running: Vec<Child> = Vec::new();
    loop {
        while running.len() < processors
            && let Some(first) = waiting.next()
        {
            running.push(start(first, (first + PORTION).min(from + count))?);
        }
        if running.is_empty() {
            break;
        }
        // In the order in which they began, so that the lowest seed that fails is told.
        let output = running.remove(0).wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            stop(running);
            return Err("a history broke an invariant".into());
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = count as f64 / seconds;
    println!(
        "{count} histories from seed {from} in {seconds:.0} s, {rate:.0} a second on {processors} processors; no invariant broken"
    );
    Ok(())
}

fn start(from: u64, to: u64) -> Result<Child, String> {
    let mut command = Command::new(target().join("debug/sim"));
    command.arg("--seeds").arg(format!("{from}..{to}")).stdout(Stdio::piped());
    command.spawn().map_err(|error| format!("cannot run the simulation: {error}"))
}

fn stop(running: Vec<Child>) {
    for mut child in running {
        // One that has ended already needs no signal.
        let _ = child.kill();
        let _ = child.wait();
    }
}
