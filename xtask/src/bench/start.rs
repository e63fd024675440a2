//! Starting an instance, and what a hundred of them cost.

use std::process::Command;

use super::run_command;
use super::table::Table;
use crate::metadata;

/// From the action to the first instruction inside, beside crun: the provider's own example measures and prints it.
pub(super) fn instances(_: &mut Table) -> Result<(), String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["run", "--release", "--locked", "--package", "kiln-provider", "--example", "spawn_bench"]);
    run_command(command.current_dir(metadata::root()))
}
