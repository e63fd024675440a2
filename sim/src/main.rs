//! `sim --seed N [--trace]`, `sim --seeds A..B`: runs histories, and prints the first one that breaks an invariant.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

use std::process::ExitCode;
use std::time::Instant;

use sim::large::Large;
use sim::{Plant, Violation};

const USAGE: &str =
    "usage: sim [--seed N [--trace] | --seeds A..B [--wide]] [--plant NAME] | --large N [--deaths]

  --seed N      runs one history
  --trace       prints what happens in it, line by line
  --seeds A..B  runs the histories of all seeds from A to B, without B
  --wide        of these, those alone that have what was added to the world last
  --plant NAME  plants a fault that should be found, such as ActBeforeAppend
  --large N     carries out a canary rollout of N instances, and says how long that took
  --deaths      kills the controller, the edge and the host while it does";

/// Lines of a failing history that are printed without `--trace`: enough to see what led to it.
const TAIL_LINES: usize = 60;

struct Arguments {
    from: u64,
    to: u64,
    trace: bool,
    wide: bool,
    plant: Option<Plant>,
}

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|word| word == "--large") {
        return large(std::env::args().skip(2));
    }
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
    let (mut entries, mut histories) = (0, 0);
    for seed in (arguments.from..arguments.to).filter(|seed| !arguments.wide || sim::is_wide(*seed)) {
        histories += 1;
        match sim::run(seed, arguments.plant) {
            Ok(stats) => entries += stats.entries,
            Err(_) => {
                show(seed, arguments.plant, TAIL_LINES);
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{histories} histories with {entries} log entries, no invariant broken");
    ExitCode::SUCCESS
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Arguments> {
    let mut arguments = Arguments { from: 0, to: 1000, trace: false, wide: false, plant: None };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--trace" => arguments.trace = true,
            "--wide" => arguments.wide = true,
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

/// Carries out one rollout of very many instances.
fn large(mut words: impl Iterator<Item = String>) -> ExitCode {
    let size = words.next().and_then(|word| word.parse().ok());
    let dies = words.next().map(|word| word == "--deaths");
    let (Some(size), None | Some(true)) = (size, dies) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match time_large(size, dies.is_some()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn time_large(size: u32, dies: bool) -> Result<(), Violation> {
    let mut large = Large::new(0, size)?;
    if dies {
        large.let_processes_die();
    }
    let begin = Instant::now();
    let came = large.roll_out()?;
    println!("simulated_canary_ms_{size} {}", begin.elapsed().as_millis());
    println!("# {came:?}");
    large.check_end()
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
