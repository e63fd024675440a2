//! How fast canaries are judged. No peer has tests that may be looked at at any moment, so there is nothing beside it.

use std::process::Stdio;

use super::table::Table;
use crate::cargo::{cargo, target};

/// What the example of `kiln-stats` says, and how it is shown.
const ROWS: [(&str, &str, &str); 7] = [
    (
        "samples_a_second",
        "canary analysis: samples judged on one core, a look at errors and p99 each 100",
        "/s",
    ),
    ("samples_a_second_looked_at_each", "… a look at both after each", "/s"),
    ("look_at_errors_us", "… a look at an error rate", " µs"),
    ("look_at_p99_us", "… a look at a p99", " µs"),
    ("evidence_of_errors_us", "… the whole evidence of an error rate, with its forecast", " µs"),
    ("evidence_of_p99_us", "… of a p99", " µs"),
    ("bytes_of_two_groups", "… memory of a rate and a quantile, however many samples", " bytes"),
];

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let output = cargo()
        .args(["run", "--release", "--locked", "--quiet", "--package", "kiln-stats", "--example", "pace"])
        .arg("--target-dir")
        .arg(target())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    for (name, what, unit) in ROWS {
        let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = number.ok_or_else(|| format!("the example says no `{name}`: {text}"))?;
        table.fact(what, format!("{number}{unit}"), None);
    }
    Ok(())
}
