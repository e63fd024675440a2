//! `kiln lock`

use std::path::Path;

use kiln_bake::{Lock, LockError, LockOptions};
use kiln_model::stack::Stack;
use serde_json::json;

use super::bake::Oven;
use super::context::Context;
use super::deploy::{bakery, load, lockfile};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::table::{count, now};

/// Pin the outside inputs of the stack's bases in kiln.lock
///
/// Reads the archives' signed indexes. What is locked and still fits the stack stays as it is; with --upgrade, everything
/// moves to what the archives have today.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln lock --upgrade && git diff kiln.lock")]
pub(super) struct Args {
    /// Move everything to what the archives have today
    #[arg(long)]
    upgrade: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    context.require_root("lock")?;
    let folder = context.folder()?;
    let (env, vars) = (context.env(), context.globals.vars.clone());
    let declared = load::declared(&folder, &env, &vars, context.screen)?;
    let oven = Oven::open(&context.state())?;
    let interrupt = Interrupt::listen(|| {});
    let old = lockfile::read(&folder)?;
    let lock = make(&oven, &declared.stack, old.as_ref(), args.upgrade, context.screen, &interrupt)?;
    let changed = save(&folder, &lock, old.is_some())?;
    let packages: usize = lock.bases.values().map(|base| base.packages.len()).sum();
    if context.screen.json() {
        context
            .screen
            .answer(&json!({ "changed": changed, "bases": lock.bases.len(), "packages": packages }));
    } else {
        let verb = if changed { "Wrote" } else { "Nothing changed in" };
        let (bases, packages) = (count(lock.bases.len(), "base"), count(packages, "package"));
        context.screen.line(&format!("{verb} kiln.lock: {bases}, {packages}."));
    }
    Ok(Exit::Done)
}

/// Makes a lock with its progress on the screen.
pub(super) fn make(
    oven: &Oven,
    stack: &Stack,
    old: Option<&Lock>,
    upgrade: bool,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Lock, Failure> {
    let options = LockOptions { upgrade, now: now() };
    bakery::with_progress(screen, interrupt, &oven.cancel, |report| {
        oven.baker.lock(stack, old, options, report)
    })
    .map_err(|error| failure(&error))
}

/// Writes a lock, unless there is nothing to be locked and no file to be emptied.
pub(super) fn save(folder: &Path, lock: &Lock, exists: bool) -> Result<bool, Failure> {
    if lock.bases.is_empty() && !exists {
        return Ok(false);
    }
    lockfile::write(folder, lock)
}

fn failure(error: &LockError) -> Failure {
    let failure = match error {
        LockError::Cancelled => Failure::failed("called off; kiln.lock is as it was"),
        _ => Failure::external("the stack's inputs can't be locked").caused_by(error),
    };
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
