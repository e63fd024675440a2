//! `kiln lock`

use std::path::Path;

use kiln_bake::{Lock, LockError, LockOptions};
use serde_json::json;

use super::bake::Oven;
use super::context::Context;
use super::deploy::load::Declared;
use super::deploy::{bakery, dockerfiles, load, lockfile};
use super::exit::Exit;
use super::failure::{Failure, Outcome};
use super::interrupt::Interrupt;
use super::screen::Screen;
use super::table::{count, now};

/// Pin the outside inputs of the stack's bases and images in kiln.lock
///
/// Reads the archives' signed indexes, asks registries what their tags point at, and fetches what Dockerfiles add of URLs and Git
/// repositories. What is locked and still fits the stack
/// stays as it is; with --upgrade, everything moves to what archives and registries have today.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln lock --upgrade && git diff kiln.lock")]
pub(super) struct Args {
    /// Move everything to what archives and registries have today
    #[arg(long)]
    upgrade: bool,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    context.require_root("lock")?;
    let folder = context.folder()?;
    let (env, vars) = (context.env(), context.globals.vars.clone());
    let declared = load::declared(&folder, &env, &vars, &context.state(), context.screen)?;
    let oven = Oven::open(&context.state(), &declared.outside)?;
    let interrupt = Interrupt::listen(|| {});
    let old = lockfile::read(&folder)?;
    let lock = make(&oven, &declared, old.as_ref(), args.upgrade, context.screen, &interrupt)?;
    let changed = save(&folder, &lock, old.is_some())?;
    let packages: usize = lock.bases.values().map(|base| base.packages.len()).sum();
    if context.screen.json() {
        context.screen.answer(&json!({
            "changed": changed, "bases": lock.bases.len(), "packages": packages, "images": lock.images.len(),
            "urls": lock.urls.len(), "repositories": lock.commits.len(),
        }));
    } else {
        let verb = if changed { "Wrote" } else { "Nothing changed in" };
        let (bases, packages) = (count(lock.bases.len(), "base"), count(packages, "package"));
        let some = |number, what| match number {
            0 => String::new(),
            number => format!(", {}", count(number, what)),
        };
        let (images, urls) = (some(lock.images.len(), "image"), some(lock.urls.len(), "file"));
        let commits = some(lock.commits.len(), "commit");
        context.screen.line(&format!("{verb} kiln.lock: {bases}, {packages}{images}{urls}{commits}."));
    }
    Ok(Exit::Done)
}

/// Makes a lock with its progress on the screen.
pub(super) fn make(
    oven: &Oven,
    declared: &Declared,
    old: Option<&Lock>,
    upgrade: bool,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Lock, Failure> {
    let options = LockOptions { upgrade, now: now() };
    let stack = &declared.stack;
    let outside = dockerfiles::outside_inputs(stack, &declared.folder)?;
    bakery::with_progress(screen, interrupt, &oven.cancel, |report| {
        let of_images = oven.baker.lock_images(stack, &outside.images, old, options, report)?;
        let bases = oven.baker.lock(stack, old, options, report)?.bases;
        let urls = oven.baker.lock_urls(&outside.urls, old, options, report)?;
        let commits = oven.baker.lock_repositories(&outside.repositories, old, options, report)?;
        Ok(Lock { bases, urls, commits, ..of_images })
    })
    .map_err(|error: LockError| failure(&error))
}

/// Writes a lock, unless there is nothing to be locked and no file to be emptied.
pub(super) fn save(folder: &Path, lock: &Lock, exists: bool) -> Result<bool, Failure> {
    if *lock == Lock::default() && !exists {
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
