//! `kiln image keygen`, `sign`, `verify` and `builder-key`

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use kiln_bake::{KeyError, KeyKind, PROVENANCE, PublicKey, SigningKey, Vouched, generate, sign, verify};
use kiln_model::Digest;
use kiln_store::Store;
use serde_json::json;

use super::{find, images, load};
use crate::cli::builder;
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};

/// A key has a few hundred bytes; what is larger is something else.
const KEY_BYTES_MAX: u64 = 64 << 10;

/// The kind of a key.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Type {
    /// ECDSA on P-256 with SHA-256, as `cosign` makes them
    P256,
    /// Ed25519
    Ed25519,
}

/// Writes a new pair of keys beside each other; nothing is overwritten.
pub(super) fn keygen(prefix: &Path, kind: Type, context: &mut Context<'_>) -> Outcome {
    let kind = match kind {
        Type::P256 => KeyKind::P256,
        Type::Ed25519 => KeyKind::Ed25519,
    };
    let at = |ending: &str| {
        let mut path = prefix.as_os_str().to_owned();
        path.push(ending);
        PathBuf::from(path)
    };
    let (private, public) = (at(".key"), at(".pub"));
    let failed = |error: KeyError| Failure::external("no key can be made").caused_by(&error);
    let text = generate(kind).map_err(failed)?;
    let key = SigningKey::from_pem(&text).map_err(failed)?;
    write_new(&private, 0o600, &text)?;
    if let Err(failure) = write_new(&public, 0o644, &key.public().to_pem()) {
        // A key without its other half is of no use to anybody.
        let _ = fs::remove_file(&private);
        return Err(failure);
    }
    if context.screen.json() {
        context.screen.answer(&json!({
            "private": private.display().to_string(),
            "public": public.display().to_string(),
            "fingerprint": key.public().fingerprint(),
        }));
        return Ok(Exit::Done);
    }
    context.screen.line(&format!("wrote {} and {}", private.display(), public.display()));
    Ok(Exit::Done)
}

fn write_new(path: &Path, mode: u32, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::refused(format!("{} is there already", path.display())).hint("choose another name")
        }
        _ => Failure::external(format!("{} can't be written", path.display())).cause(error),
    })
}

pub(super) fn run_sign(store: &Store, which: &str, key: &Path, context: &mut Context<'_>) -> Outcome {
    let key = SigningKey::from_pem(&read(key)?).map_err(|error| unusable(key, &error))?;
    let _lease = store
        .leases
        .take("sign")
        .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
    let (digest, names) = find(&images(store)?, which)?;
    let image = load(store, digest)?;
    let name = names.iter().find(|name| *name == which).or(names.first());
    let name = name.map_or_else(|| digest.to_string(), Clone::clone);
    sign(store, &image, &name, &key).map_err(|error| {
        Failure::external(format!("image {} can't be signed", digest.short())).caused_by(&error)
    })?;
    let fingerprint = key.public().fingerprint();
    if context.screen.json() {
        context.screen.answer(&json!({ "image": digest.to_string(), "key": fingerprint }));
        return Ok(Exit::Done);
    }
    context.screen.line(&format!("{digest} is signed by key {fingerprint}"));
    Ok(Exit::Done)
}

/// Prints the public half of this host's builder's key.
pub(super) fn builder_key(context: &mut Context<'_>) -> Outcome {
    let key = builder::key(&context.state())?.public();
    if context.screen.json() {
        context.screen.answer(&json!({ "public": key.to_pem(), "fingerprint": key.fingerprint() }));
        return Ok(Exit::Done);
    }
    context.screen.print(&key.to_pem());
    Ok(Exit::Done)
}

/// Checks that a builder signed the provenance that an image shows: this host's, or the one of a key.
pub(super) fn verify_provenance(
    store: &Store,
    which: &str,
    key: Option<&Path>,
    context: &mut Context<'_>,
) -> Outcome {
    let key = match key {
        Some(path) => PublicKey::from_pem(&read(path)?).map_err(|error| unusable(path, &error))?,
        None => builder::key(&context.state())?.public(),
    };
    let (digest, _) = find(&images(store)?, which)?;
    let vouched = vouched(store, digest, &key)?;
    if !vouched.statements.contains(PROVENANCE) || vouched.unsigned.contains(PROVENANCE) {
        let failure = Failure::failed(format!("no provenance of image {} is this builder's", digest.short()));
        let cause = match vouched.unsigned.contains(PROVENANCE) {
            true => "the provenance that it shows is not signed by this key",
            false => "nobody noted what it was made from",
        };
        return Err(failure
            .cause(cause)
            .hint("`kiln image builder-key` on the host that baked it prints its key"));
    }
    if context.screen.json() {
        context.screen.answer(&json!({
            "image": digest.to_string(),
            "key": key.fingerprint(),
            "statements": [PROVENANCE],
        }));
        return Ok(Exit::Done);
    }
    context.screen.line(&format!("{digest} was baked by the builder with key {}", key.fingerprint()));
    context.screen.line(&format!("  which signed {PROVENANCE}"));
    Ok(Exit::Done)
}

fn vouched(store: &Store, image: Digest, key: &PublicKey) -> Result<Vouched, Failure> {
    verify(store, &image, key).map_err(|error| {
        Failure::external(format!("the signatures of image {} can't be read", image.short()))
            .caused_by(&error)
    })
}

pub(super) fn run_verify(store: &Store, which: &str, key: &Path, context: &mut Context<'_>) -> Outcome {
    let key = PublicKey::from_pem(&read(key)?).map_err(|error| unusable(key, &error))?;
    let (digest, _) = find(&images(store)?, which)?;
    let vouched = vouched(store, digest, &key)?;
    let hint = format!("`kiln image sign {which} --key FILE` signs it, if you vouch for it");
    if !vouched.image {
        let failure = Failure::failed(format!("image {} is not signed by this key", digest.short()));
        let cause = match vouched.others {
            0 => "it has no signature".to_owned(),
            1 => "it has one signature, of another key or of another image".to_owned(),
            count => format!("it has {count} signatures, all of other keys or of other images"),
        };
        return Err(failure.cause(cause).hint(hint));
    }
    if !vouched.unsigned.is_empty() {
        let mut failure =
            Failure::failed(format!("image {} is signed, and what is said about it is not", digest.short()));
        for predicate in &vouched.unsigned {
            failure = failure.cause(format!("this key did not sign what it shows as {predicate}"));
        }
        return Err(failure.hint(hint));
    }
    if context.screen.json() {
        context.screen.answer(&json!({
            "image": digest.to_string(),
            "key": key.fingerprint(),
            "statements": vouched.statements,
        }));
        return Ok(Exit::Done);
    }
    context.screen.line(&format!("{digest} is signed by key {}", key.fingerprint()));
    for predicate in &vouched.statements {
        context.screen.line(&format!("  and {predicate}"));
    }
    Ok(Exit::Done)
}

fn read(path: &Path) -> Result<String, Failure> {
    let failed =
        |error: std::io::Error| Failure::refused(format!("{} can't be read", path.display())).cause(error);
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text)).map_err(failed)?;
    Ok(text)
}

fn unusable(path: &Path, error: &KeyError) -> Failure {
    let failure = Failure::refused(format!("{} can't be used as a key", path.display())).caused_by(error);
    match error {
        KeyError::Encrypted | KeyError::Sec1 => {
            failure.hint("`openssl pkcs8 -topk8 -nocrypt -in FILE` writes it in the form that is read")
        }
        _ => failure.hint("`kiln image keygen NAME` makes a pair; `openssl genpkey` does, too"),
    }
}
