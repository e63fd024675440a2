//! `kiln bake`

use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_bake::{
    BakeError, Baker, BakerOptions, Cancel, CopyError, IGNORE_FILE, Lock, MadePart, Report, SigningKey,
    Source, SourceError, StepError, attest,
};
use kiln_model::image::Image;
use kiln_model::stack::Stack;
use kiln_model::{ByteSize, Digest, ImageName};
use kiln_store::snapshot::CaptureError;
use kiln_store::{Damage, Lease, Store};
use serde_json::{Value, json};

use super::builder;
use super::context::Context;
use super::deploy::load::Declared;
use super::deploy::registries::AnyRegistry;
use super::deploy::secrets::OfStack;
use super::deploy::{bakery, dockerfiles, integrity, load, lockfile, snapshot};
use super::exit::Exit;
use super::failure::{Failure, Kind, Outcome};
use super::interrupt::Interrupt;
use super::prove;
use super::screen::Screen;
use super::table::Table;
use crate::runtime::StateDir;

/// Bake the stack's images
///
/// Captures the folder and makes every image from it and kiln.lock. What did not change is taken from the store. Nothing
/// that runs is touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  kiln bake && kiln image list\n  kiln bake --prove")]
pub(super) struct Args {
    /// Bake without the cache, then again in other surroundings, and compare
    ///
    /// The second bake has another clock, file system, host name, number of processors, umask, folder and environment. What is the
    /// same is `proven`, with a certificate; what is not is named with the file, the difference and the step. Exits with 1 unless
    /// all is proven.
    #[arg(long)]
    prove: bool,
    /// Do every step again; packages that were fetched, and what cache mounts hold, stay
    #[arg(long)]
    no_cache: bool,
    /// Answer also with what each image was made from: what a second bake is asked for
    #[arg(long, hide = true)]
    parts: bool,
    /// Where secrets and images of files are, if not in the folder: the second bake of a proof has a copy without them
    #[arg(long, hide = true, value_name = "DIR")]
    files_from: Option<PathBuf>,
}

/// How often a bake is repeated over a damaged store: each finds all that is damaged of the images, or the one input that it
/// stumbled over. A disk with more wrong with it than this is to be looked at by somebody.
const MENDS_MAX: usize = 8;

/// What a bake leaves behind, held by its lease until it is referred to.
pub(super) struct Baked {
    /// Where everything is stored.
    pub(super) store: Store,
    /// The snapshot of the folder.
    pub(super) source: Digest,
    /// The images.
    pub(super) images: BTreeMap<ImageName, Image>,
    /// What each was made from, where it is to be compared.
    pub(super) parts: BTreeMap<ImageName, Vec<MadePart>>,
    /// Keeps a collection away.
    pub(super) _lease: Lease,
}

pub(super) fn run(args: &Args, context: &mut Context<'_>) -> Outcome {
    kiln_bake::share_heap();
    context.require_root("bake")?;
    let (env, vars) = (context.env(), context.globals.vars.clone());
    let cache = match args {
        Args { prove: true, .. } | Args { parts: true, .. } => Cache::Compared,
        Args { no_cache: true, .. } => Cache::Unused,
        _ => Cache::Used,
    };
    let state = context.state();
    let ahead = |stack: &Stack| {
        (cache == Cache::Used).then(|| integrity::Ahead::begin(&state, stack, stack.images.keys()))
    };
    let (mut declared, ahead) =
        load::declared_with(&context.folder()?, &env, &vars, &state, context.screen, ahead)?;
    if let Some(folder) = &args.files_from {
        declared.outside.clone_from(folder);
    }
    let interrupt = Interrupt::listen(|| {});
    let verify = Verify { wanted: &|_| true, ahead };
    let baked = bake(&mut declared, &state, cache, verify, context.screen, &interrupt)?;
    if args.prove {
        return prove::run(&baked, &interrupt, context);
    }
    if context.screen.json() {
        let images: serde_json::Map<_, _> = baked
            .images
            .iter()
            .map(|(name, image)| (name.to_string(), json!(image.manifest.to_string())))
            .collect();
        let unproven: serde_json::Map<_, _> = baked
            .images
            .iter()
            .filter(|(_, image)| !image.unproven.is_empty())
            .map(|(name, image)| (name.to_string(), json!(image.unproven)))
            .collect();
        let source = baked.source.to_string();
        let mut answer = json!({ "source": source, "images": images, "unproven": unproven });
        if args.parts {
            answer["parts"] = parts_answer(&baked.parts);
        }
        context.screen.answer(&answer);
        return Ok(Exit::Done);
    }
    let mut table = Table::bare();
    for (name, image) in &baked.images {
        let proof = if image.unproven.is_empty() { "" } else { "unproven" };
        let (digest, size) = (image.manifest.to_string(), ByteSize(image.size_bytes).to_string());
        table.row([name.to_string(), digest, size, proof.to_owned()]);
    }
    context.screen.print(&table.render(0));
    Ok(Exit::Done)
}

fn parts_answer(parts: &BTreeMap<ImageName, Vec<MadePart>>) -> Value {
    let part = |part: &MadePart| json!({ "name": part.name, "manifest": part.manifest.to_string() });
    let image = |(name, parts): (&ImageName, &Vec<MadePart>)| {
        (name.to_string(), Value::Array(parts.iter().map(part).collect()))
    };
    Value::Object(parts.iter().map(image).collect())
}

/// A baker with its store and its switch.
pub(super) struct Oven {
    /// Where everything is stored.
    pub(super) store: Store,
    /// Makes locks and images.
    pub(super) baker: Baker,
    /// Calls it off.
    pub(super) cancel: Cancel,
    options: BakerOptions,
}

impl Oven {
    /// Opens the store of a state folder, for a stack whose paths of images are relative to `folder`.
    ///
    /// # Errors
    /// The store can't be opened.
    pub(super) fn open(state: &StateDir, folder: &Path) -> Result<Self, Failure> {
        Self::open_with(state, folder, |_| {})
    }

    /// The same, for a bake that needs more than what the machine says.
    fn open_with(
        state: &StateDir,
        folder: &Path,
        change: impl FnOnce(&mut BakerOptions),
    ) -> Result<Self, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::external("the store can't be opened")
                .caused_by(error)
                .hint("`--state DIR` or KILN_STATE names another state folder")
        };
        let store = Store::open(state.path()).map_err(|error| failed(&error))?;
        let cancel = Cancel::default();
        let registries = Arc::new(AnyRegistry { folder: folder.to_owned() });
        let ssh_agent = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
        let mut options =
            BakerOptions { cancel: cancel.clone(), registries, ssh_agent, ..BakerOptions::default() };
        change(&mut options);
        let baker = Baker::new(store.clone(), options.clone()).map_err(|error| failed(&error))?;
        Ok(Self { store, baker, cancel, options })
    }

    /// The same one, which does every step again.
    fn without_cache(&self) -> Result<Self, Failure> {
        let (store, cancel) = (self.store.clone(), self.cancel.clone());
        let options = BakerOptions { no_cache: true, ..self.options.clone() };
        let baker = Baker::new(store.clone(), options.clone())
            .map_err(|error| Failure::external("the store can't be opened").caused_by(&error))?;
        Ok(Self { store, baker, cancel, options })
    }
}

/// Whether what was baked before is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cache {
    /// What did not change is taken from the store.
    Used,
    /// Every step is done again.
    Unused,
    /// Every step is done again, to be compared with another bake's.
    Compared,
}

/// Locks where nothing is locked yet, captures the folder, and bakes. Of the images that `verify` names is looked at all that
/// is stored; what is damaged is made again.
pub(super) fn bake(
    declared: &mut Declared,
    state: &StateDir,
    cache: Cache,
    verify: Verify<'_>,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Baked, Failure> {
    let secrets = OfStack { sources: declared.stack.secrets.clone(), folder: declared.outside.clone() };
    let oven = Oven::open_with(state, &declared.outside, |options| {
        options.secrets = Arc::new(secrets);
        options.no_cache = cache != Cache::Used;
    })?;
    let purpose = format!("bake {}", declared.stack.name);
    let lease = oven
        .store
        .leases
        .take(&purpose)
        .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
    let lock = locked(&oven, declared, state, screen, interrupt)?;
    let attester = Attester { lock: &lock, key: builder::key(state)? };
    let made = make_whole((&oven, cache), (declared, state), &attester, verify, screen, interrupt)?;
    let Made { source, baked: kiln_bake::Baked { images, parts, .. } } = made;
    for (name, image) in &images {
        for reason in &image.unproven {
            screen.note(&format!("image {name} is unproven: {reason}"));
        }
        // A name is for people: without it the image is found by its digest.
        let _ = oven.store.images.set_name(&integrity::name_in_store(&declared.stack, name), &image.manifest);
    }
    Ok(Baked { store: oven.store, source, images, parts, _lease: lease })
}

/// What is looked at as a whole.
pub(super) struct Verify<'a> {
    /// Which images.
    pub(super) wanted: &'a dyn Fn(&ImageName) -> bool,
    /// What is seen of them while it is not known yet what they come to, for the first look.
    pub(super) ahead: Option<integrity::Ahead>,
}

/// Says what images were made from.
struct Attester<'a> {
    lock: &'a Lock,
    /// The builder's.
    key: SigningKey,
}

impl Attester<'_> {
    /// Says it of all images of a bake, with what the bake found out beside.
    fn attest(&self, store: &Store, stack: &Stack, made: &Made, mut known: Known) -> Result<(), Failure> {
        let source = Source::Snapshot(made.source);
        for (name, image) in &made.baked.images {
            let subject = (name, image, known.remove(name).unwrap_or_default());
            attest(store, stack, self.lock, &source, subject, &self.key).map_err(|error| {
                Failure::external(format!("what image {name} was made from can't be noted"))
                    .caused_by(&error)
                    .hint("`kiln bake` verifies every image of the stack, and makes again what is damaged")
            })?;
        }
        Ok(())
    }
}

/// What a bake found out about its images beside them.
type Known = BTreeMap<ImageName, kiln_bake::Known>;

/// Bakes until nothing is damaged, after the first time without believing what was baked before, and says what the images were
/// made from.
fn make_whole(
    (oven, cache): (&Oven, Cache),
    (declared, state): (&mut Declared, &StateDir),
    attester: &Attester<'_>,
    mut verify: Verify<'_>,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Made, Failure> {
    let (store, mut again) = (&oven.store, None);
    for _ in 0..=MENDS_MAX {
        let oven = again.as_ref().unwrap_or(oven);
        match make((oven, cache), (declared, state), attester.lock, screen, interrupt)? {
            Err(error) if discard_culprit(store, &error, screen)? => {}
            Err(error) => return Err(failure(&error, &declared.folder)),
            Ok(mut made) => {
                let (stack, known) = (&declared.stack, std::mem::take(&mut made.baked.known));
                // Neither needs the other. What is said of an image that is damaged is true of the one that is made again, too.
                let (attested, damaged) = std::thread::scope(|scope| {
                    let attesting = scope.spawn(|| attester.attest(store, stack, &made, known));
                    let damaged = damaged(store, &made, &mut verify);
                    (attesting.join().unwrap_or_else(|panic| resume_unwind(panic)), damaged)
                });
                let damaged = damaged?;
                if damaged.is_empty() {
                    return attested.map(|()| made);
                }
                discard(store, &damaged, screen)?;
            }
        }
        again = Some(oven.without_cache()?);
    }
    Err(Failure::external("the store is damaged, and baking again and again did not mend it")
        .hint("check the disk of the state folder; what runs was not touched"))
}

/// What one bake came to.
struct Made {
    source: Digest,
    baked: kiln_bake::Baked,
}

/// Captures the folder beside baking all images from what it was listed as. Where it is another one by now, what was baked is
/// nothing, and it is captured as it is and baked again. The outer error is not the bake's.
fn make(
    (oven, cache): (&Oven, Cache),
    (declared, state): (&mut Declared, &StateDir),
    lock: &Lock,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Result<Made, BakeError>, Failure> {
    let snapshots = &oven.store.snapshots;
    if cache != Cache::Used {
        // To do every step twice costs more than is saved.
        let Declared { folder, listing, sources, stack, .. } = declared;
        let source = snapshot::capture(snapshots, folder, listing, sources)?;
        return Ok(make_from(source, (oven, cache), stack, lock, screen, interrupt));
    }
    let capturing = snapshot::begin(snapshots, &declared.folder, &declared.listing, &declared.sources)?;
    let made = make_from(capturing.digest(), (oven, cache), &declared.stack, lock, screen, interrupt);
    match capturing.end() {
        Ok(()) => Ok(made),
        Err(error) if error.is_change() => {
            screen.note("a file of the stack folder changed meanwhile: it is baked again, as it is now");
            declared.follow_change(state)?;
            let Declared { folder, listing, sources, stack, .. } = declared;
            let source = snapshot::capture(snapshots, folder, listing, sources)?;
            Ok(make_from(source, (oven, cache), stack, lock, screen, interrupt))
        }
        Err(CaptureError::Stored(error)) => Ok(Err(BakeError::Source(SourceError::Snapshot(error)))),
        Err(error) => Err(snapshot::failure(&error)),
    }
}

/// Bakes all images from a snapshot.
fn make_from(
    source: Digest,
    (oven, cache): (&Oven, Cache),
    stack: &Stack,
    lock: &Lock,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Made, BakeError> {
    let (names, files) = (stack.images.keys().cloned().collect(), Source::Snapshot(source));
    let bake = |report: Report<'_>| match cache {
        Cache::Compared => oven.baker.bake_with_parts(stack, lock, &files, &names, report),
        Cache::Used | Cache::Unused => oven.baker.bake_and_list(stack, lock, &files, &names, report),
    };
    let baked = bakery::with_progress(screen, interrupt, &oven.cancel, bake)?;
    Ok(Made { source, baked })
}

/// Removes what a bake stumbled over; whether it was that.
fn discard_culprit(store: &Store, error: &BakeError, screen: &mut Screen) -> Result<bool, Failure> {
    let Some(digest) = integrity::culprit(error) else { return Ok(false) };
    screen.note(&format!("{digest} is damaged in the store; it is made again"));
    integrity::discard(store, &digest)?;
    Ok(true)
}

/// Finds what is damaged of the images of a bake.
fn damaged(store: &Store, made: &Made, verify: &mut Verify<'_>) -> Result<Vec<(ImageName, Damage)>, Failure> {
    let wanted = made.baked.images.iter().filter(|(name, _)| (verify.wanted)(name));
    integrity::damaged(store, verify.ahead.take(), wanted.map(|(name, image)| (name, &image.manifest)))
}

/// Removes what is damaged, so that it is made again.
fn discard(store: &Store, damaged: &[(ImageName, Damage)], screen: &mut Screen) -> Result<(), Failure> {
    for (name, damage) in damaged {
        screen.note(&format!("image {name}: {damage}; it is made again"));
        store.discard(damage).map_err(|error| {
            Failure::external(format!("image {name} is damaged, and what is damaged can't be removed"))
                .cause(error)
        })?;
    }
    Ok(())
}

/// The lock of the folder; made where there is none, and refused where it does not fit.
fn locked(
    oven: &Oven,
    declared: &mut Declared,
    state: &StateDir,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Lock, Failure> {
    if let Some(lock) = lockfile::read(&declared.folder)? {
        lockfile::require_fresh(&lock, declared)?;
        return Ok(lock);
    }
    let lock = super::lock::make(oven, declared, None, false, screen, interrupt)?;
    if super::lock::save(&declared.folder, &lock, false)? {
        screen.note(
            "wrote kiln.lock: commit it, so that the next bake starts from the same packages and images",
        );
        declared.rescan(state)?;
    }
    Ok(lock)
}

/// Lines of a failed command's output that are shown: its last words are the ones that say why.
const LOG_LINES_MAX: usize = 20;

fn failure(error: &BakeError, folder: &Path) -> Failure {
    if matches!(error, BakeError::Cancelled) {
        return Failure::failed("called off; what runs was not touched");
    }
    let step = match error {
        BakeError::Dockerfile { problems } => return dockerfiles::failure(problems),
        BakeError::Step { source, .. } => Some(source.as_ref()),
        _ => None,
    };
    let kind = match step {
        None if matches!(error, BakeError::NoDockerfile { .. }) => Kind::Config,
        // What the stack says does not fit its own files.
        Some(StepError::Copy(CopyError::Source(_) | CopyError::Put(_))) => Kind::External,
        Some(
            StepError::Copy(_) | StepError::Account(_) | StepError::Archive(_) | StepError::Provision(_),
        ) => Kind::Config,
        _ => Kind::External,
    };
    let mut failure = Failure::new(kind, "the images can't be baked").caused_by(error);
    let lines: Vec<&str> = error.log().lines().collect();
    if !lines.is_empty() {
        let tail = &lines[lines.len().saturating_sub(LOG_LINES_MAX)..];
        failure = failure.cause(format!("it printed:\n{}", tail.join("\n")));
    }
    match (error.hint(), step) {
        // The snapshot does not hold what is ignored, so the bake can't tell it from what never was.
        (_, Some(StepError::Copy(CopyError::Missing { from, .. }))) if folder.join(from).exists() => {
            failure.hint(format!("{IGNORE_FILE} leaves it out: add a rule that begins with `!`"))
        }
        (Some(hint), _) => failure.hint(hint),
        (None, _) => failure,
    }
}

#[cfg(test)]
mod tests;
