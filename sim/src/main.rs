//! `sim --seed N [--trace]`, `sim --seeds A..B`: runs histories, and prints the first one that breaks an invariant.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

use std::process::ExitCode;

use sim::Plant;

const USAGE: &str = "usage: sim [--seed N [--trace] | --seeds A..B] [--plant NAME]

  --seed N      runs one history
  --trace       prints what happens in it, line by line
  --seeds A..B  runs the histories of all seeds from A to B, without B
  --plant NAME  plants a fault that should be found, such as ActBeforeAppend";

/// Lines of a failing history that are printed without `--trace`: enough to see what led to it.
const TAIL_LINES: usize = 60;

struct Arguments {
    from: u64,
    to: u64,
    trace: bool,
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    let Some(arguments) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if arguments.trace {
        return if show(arguments.from, arguments.plant, usize::MAX) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    let mut entries = 0;
    for seed in arguments.from..arguments.to {
        match sim::run(seed, arguments.plant) {
            Ok(stats) => entries += stats.entries,
            Err(_) => {
                show(seed, arguments.plant, TAIL_LINES);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{} histories with {entries} log entries, no invariant broken", arguments.to - arguments.from);
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { from: 0, to: 1000, trace: false, plant: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--trace" => arguments.trace = true,
            "--seed" => {
                arguments.from = words.next()?.parse().ok()?;
                arguments.to = arguments.from + 1;
            }
            "--seeds" => {
                let range = words.next()?;
                let (from, to) = range.split_once("..")?;
                (arguments.from, arguments.to) = (from.parse().ok()?, to.parse().ok()?);
            }
            "--plant" => {
                let name = words.next()?;
                arguments.plant = Some(Plant::ALL.into_iter().find(|plant| format!("{plant:?}") == name)?);
            }
            _ => return None,
        }
    }
    (arguments.from < arguments.to).then_some(arguments)
}

/// Prints the end of a history; true if nothing broke.
fn show(seed: u64, plant: Option<Plant>, lines: usize) -> bool {
    let (trace, outcome) = sim::trace(seed, plant);
    for line in &trace[trace.len().saturating_sub(lines)..] {
        println!("{line}");
    }
    match outcome {
        Ok(stats) => {
            println!("seed {seed}: no invariant broken; {stats:?}");
            true
        }
        Err(violation) => {
            println!("seed {seed}: {violation}\nrepeat with: cargo run -p sim -- --seed {seed} --trace");
            false
        }
    }
}
