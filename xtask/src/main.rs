//! `cargo xtask`: what CI runs, and the benches.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bench;
mod cargo;
mod ci;
mod deps;
mod fuzz;
mod metadata;
mod sim;
mod study;
mod tidy;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND

  ci        everything that CI checks: fmt, clippy, tests, docs, deps, tidy
  test      the tests alone
  fuzz      the parsers of outside bytes, a minute each: all, or those named; --seconds N --seed N
  bench     Kiln beside its peers: all, or those named (build start memory rollback replace plan bake sbom dockerfile registry keep analysis decide)
  sim       seeded histories on all processors: sim [HOW MANY [FROM SEED]], 100,000 from 0 where nothing is said
  study     ten thousand simulated canaries, judged: the tables of docs/statistics.md; with CANARIES REQUESTS a smaller one, printed only
  vm        the provider's tests on a Debian kernel with cgroup v2 alone, emulated: vm LINUX-IMAGE.deb
  tidy      crate edges, file sizes, banned calls and words
  deps      licences, duplicates, one TLS provider
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        Some("ci") => ci::run(),
        Some("test") => ci::test(&arguments[1..]),
        Some("fuzz") => fuzz::run(&arguments[1..]),
        Some("bench") => bench::run(&arguments[1..]),
        Some("sim") => sim::run(&arguments[1..]),
        Some("study") => study::run(&arguments[1..]),
        Some("vm") => vm::run(&arguments[1..]),
        Some("tidy") => tidy::run(),
        Some("deps") => deps::run(),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}
