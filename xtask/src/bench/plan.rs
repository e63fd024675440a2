//! `plan` and `up` where nothing, or everything, is new.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::median;
use super::table::Table;

const SERVICES: usize = 10_000;

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    let times: Vec<Duration> = (0..7).map(|_| timed(|| machine.kiln(&["up"]).ok())).collect();
    table.row("`up` with nothing changed", median(times), None);

    let large = Machine::new();
    let mut stack =
        String::from("stack \"large\" {}\n\nimage \"a\" {\n  from = \"scratch\"\n  command = [\"/a\"]\n}\n");
    for index in 0..SERVICES {
        write!(stack, "\nservice \"s{index}\" {{\n  image = image.a\n  env = {{ N = \"{index}\" }}\n}}\n")
            .map_err(|e| e.to_string())?;
    }
    large.write("stack.hcl", stack);
    table.row("`plan` of 10,000 services", timed(|| large.kiln(&["plan"]).ok()), None);
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    work();
    begin.elapsed()
}
