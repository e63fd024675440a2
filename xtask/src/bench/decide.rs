//! How fast decisions about large environments are. No peer decides without doing, so there is nothing beside it.

use std::process::Stdio;

use super::table::Table;
use crate::cargo::{cargo, target};

/// Which program is asked what, and what it says then.
type Question = (Program, &'static [&'static str], &'static [Row]);

/// How cargo runs a program.
type Program = &'static [&'static str];

/// The core alone.
const CORE: Program = &["--package", "kiln-core", "--example", "pace"];

/// The simulation: the controller with a host, an edge and links to them.
const SIMULATION: Program = &["--package", "sim"];

/// A name of the example's, what it is, and its unit.
type Row = (&'static str, &'static str, &'static str);

const QUESTIONS: [Question; 5] = [
    (
        CORE,
        &["10000"],
        &[
            (
                "health_change_us_10000",
                "deciding in an environment of 10,000 instances: one becomes unhealthy",
                " µs",
            ),
            ("new_release_canary_ms_10000", "… a new release, as canaries", " ms"),
            ("new_release_blue_green_ms_10000", "… blue-green, which creates all of it at once", " ms"),
            ("memory_per_instance_10000", "… memory of an instance", " bytes"),
        ],
    ),
    (CORE, &["1000"], &[("memory_per_instance_1000", "… of one of 1,000", " bytes")]),
    (CORE, &["100000"], &[("memory_per_instance_100000", "… of one of 100,000", " bytes")]),
    (
        CORE,
        &["rollout", "100000"],
        &[
            (
                "rollout_canary_ms_100000",
                "a whole canary of 100,000 instances, every action answered at once",
                " ms",
            ),
            ("rollout_blue_green_ms_100000", "… blue-green", " ms"),
        ],
    ),
    (
        SIMULATION,
        &["--large", "100000"],
        &[(
            "simulated_canary_ms_100000",
            "… a canary in the simulation, with its host, edge, links and invariants",
            " ms",
        )],
    ),
];

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    for (program, words, rows) in QUESTIONS {
        // A process each: what one has let go of is not given back to the machine.
        let output = cargo()
            .args(["run", "--release", "--locked", "--quiet"])
            .args(program)
            .arg("--target-dir")
            .arg(target())
            .arg("--")
            .args(words)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("cannot run cargo: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        for (name, what, unit) in rows {
            let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let number = number.ok_or_else(|| format!("the program says no `{name}`: {text}"))?;
            table.fact(what, format!("{number}{unit}"), None);
        }
    }
    Ok(())
}
