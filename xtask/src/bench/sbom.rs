//! The bill of materials of a large image. None of the programs that write one is in Debian, so there is nothing beside it.

use std::time::Instant;

use super::machine::Machine;
use super::median;
use super::table::Table;

const RUNS: usize = 7;

/// Debian packages, with Python's own beside them, of some 200 MB.
const STACK: &str = r#"
stack "bench" {}

base "debian" "large" {
  suite    = "bookworm"
  packages = ["apt", "ca-certificates", "git", "perl", "python3-pip"]
}

image "large" {
  from = base.debian.large
}
"#;

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write("stack.hcl", STACK);
    machine.kiln(&["lock"]).ok();
    machine.kiln(&["bake"]).ok();
    let shown = machine.kiln(&["--json", "image", "show", "bench/large"]).ok().out;
    let shown: serde_json::Value = serde_json::from_str(&shown).map_err(|error| error.to_string())?;
    let megabytes = shown["size_bytes"].as_u64().unwrap_or_default() / 1_000_000;
    for format in ["spdx", "cyclonedx"] {
        let words = ["image", "sbom", "bench/large", "--format", format];
        let times = (0..RUNS).map(|_| {
            let begin = Instant::now();
            machine.kiln(&words).ok();
            begin.elapsed()
        });
        table.row(
            &format!("the bill of materials of {megabytes} MB, {format}"),
            median(times.collect()),
            None,
        );
    }
    Ok(())
}
