//! `kiln image diff`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kiln_bake::{Ecosystem, Inventory};
use kiln_model::ByteSize;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::instance::HealthCheck;
use kiln_store::tree::{Aspect, Difference};
use kiln_store::{Entry, Kind, Store, Tree, TreePath};
use serde_json::{Value, json};

use super::{find, images, inventory, load, unreadable};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::plan::changes::{Change, Changes, probe_text, quoted, words};
use crate::cli::screen::Paint;
use crate::cli::table::{Table, count};

/// Files that the text names; a new base differs in thousands, which nobody reads. `--json` has them all.
const FILES_SHOWN_MAX: usize = 200;

/// One package whose versions differ. An image may hold several versions of one.
#[derive(Debug, PartialEq, Eq)]
struct PackageChange {
    ecosystem: Ecosystem,
    name: String,
    arch: Option<String>,
    old: BTreeSet<String>,
    new: BTreeSet<String>,
}

pub(super) fn run(store: &Store, old: &str, new: &str, context: &mut Context<'_>) -> Outcome {
    // A collection at the same time could remove what is being read.
    let _lease = store
        .leases
        .take("compare images")
        .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
    let all = images(store)?;
    let (old, new) = (load(store, find(&all, old)?.0)?, load(store, find(&all, new)?.0)?);
    let (old_tree, new_tree) = (tree(store, &old)?, tree(store, &new)?);
    let config = config_changes(&old.config, &new.config);
    let packages = package_changes(&inventory(store, &old)?, &inventory(store, &new)?);
    let files = old_tree.differences(&new_tree);
    if context.screen.json() {
        context.screen.answer(&json!({
            "old": old.manifest.to_string(),
            "new": new.manifest.to_string(),
            "config": config.iter().map(config_json).collect::<Vec<_>>(),
            "packages": packages.iter().map(package_json).collect::<Vec<_>>(),
            "files": files.iter().map(|(path, difference)| file_json(path, difference)).collect::<Vec<_>>(),
        }));
        return Ok(Exit::Done);
    }
    let paint = context.screen.paint();
    let mut text = format!("{} → {}\n", old.manifest.short(), new.manifest.short());
    section(&mut text, "config", config.iter().map(|change| config_cells(change, paint)));
    section(&mut text, "packages", packages.iter().map(|change| package_cells(change, paint)));
    files_text(&mut text, &files, paint);
    if config.is_empty() && packages.is_empty() && files.is_empty() {
        text.push_str("They do not differ in config, packages or files.\n");
    }
    context.screen.print(&text);
    Ok(Exit::Done)
}

fn tree(store: &Store, image: &Image) -> Result<Tree, Failure> {
    store.trees.load(&image.tree).map_err(|error| unreadable(image, &error))
}

/// The destructuring is exhaustive on purpose: a field that is added to the config can't be forgotten here.
fn config_changes(old: &ImageConfig, new: &ImageConfig) -> Vec<Change> {
    let ImageConfig { env, entrypoint, command, workdir, user, labels, expose, volumes, stop_signal, health } =
        new;
    let mut changes = Changes::default();
    for (name, old, new) in [
        ("entrypoint", &old.entrypoint, entrypoint),
        ("command", &old.command, command),
        ("expose", &old.expose, expose),
        ("volumes", &old.volumes, volumes),
    ] {
        changes.optional(name, Some(words(old)), Some(words(new)));
    }
    for (name, old, new) in [
        ("workdir", &old.workdir, workdir),
        ("user", &old.user, user),
        ("stop_signal", &old.stop_signal, stop_signal),
    ] {
        changes.text(name, old, new);
    }
    changes.map("env", &old.env, env, |value| quoted(value));
    changes.map("labels", &old.labels, labels, |value| quoted(value));
    let asked = |health: &Option<HealthCheck>| {
        let text = |health: &HealthCheck| format!("{} every {}", probe_text(&health.probe), health.interval);
        health.as_ref().map(text)
    };
    changes.optional("health", asked(&old.health), asked(health));
    changes.into_vec()
}

fn package_changes(old: &Inventory, new: &Inventory) -> Vec<PackageChange> {
    let (old, new) = (versions(old), versions(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let of = |side: &BTreeMap<Key, BTreeSet<String>>, key: &Key| side.get(key).cloned().unwrap_or_default();
    let changes = keys.into_iter().map(|key| PackageChange {
        ecosystem: key.0,
        name: key.1.clone(),
        arch: key.2.clone(),
        old: of(&old, key),
        new: of(&new, key),
    });
    changes.filter(|change| change.old != change.new).collect()
}

/// What a package is, whatever its version.
type Key = (Ecosystem, String, Option<String>);

fn versions(inventory: &Inventory) -> BTreeMap<Key, BTreeSet<String>> {
    let mut versions: BTreeMap<Key, BTreeSet<String>> = BTreeMap::new();
    for package in &inventory.packages {
        let key = (package.ecosystem, package.name.clone(), package.arch.clone());
        versions.entry(key).or_default().insert(package.version.clone());
    }
    versions
}

fn section(text: &mut String, title: &str, rows: impl Iterator<Item = [String; 3]>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    let mut table = Table::bare();
    rows.for_each(|row| table.row(row));
    // Writing to a String can't fail.
    let _ = write!(text, "\n{title}\n{}", table.render(2));
}

fn files_text(text: &mut String, files: &[(&TreePath, Difference<'_>)], paint: Paint) {
    let (aged, telling): (Vec<_>, Vec<_>) =
        files.iter().partition(|(_, difference)| is_time_alone(difference));
    let shown = telling.iter().take(FILES_SHOWN_MAX);
    section(text, "files", shown.map(|(path, difference)| file_cells(path, difference, paint)));
    let more = telling.len().saturating_sub(FILES_SHOWN_MAX);
    // Writing to a String can't fail.
    if more > 0 {
        let _ = writeln!(text, "  and {more} more; `--json` has all");
    }
    if !aged.is_empty() {
        let _ = writeln!(text, "\n{} in their time alone", differ(aged.len()));
    }
}

fn differ(files: usize) -> String {
    format!("{} {}", count(files, "file"), if files == 1 { "differs" } else { "differ" })
}

fn is_time_alone(difference: &Difference<'_>) -> bool {
    matches!(difference, Difference::Changed { aspects, .. } if aspects == &[Aspect::Time])
}

/// How a row begins: with what came, went or changed.
fn sign(came: bool, went: bool, paint: Paint) -> String {
    match (came, went) {
        (true, false) => paint.green("+"),
        (false, true) => paint.red("-"),
        _ => paint.yellow("~"),
    }
}

fn config_cells(change: &Change, paint: Paint) -> [String; 3] {
    let sign = sign(change.from.is_none(), change.to.is_none(), paint);
    let sides: Vec<&str> = [&change.from, &change.to].into_iter().flatten().map(String::as_str).collect();
    [sign, change.path.clone(), sides.join(" → ")]
}

fn package_cells(change: &PackageChange, paint: Paint) -> [String; 3] {
    let sign = sign(change.old.is_empty(), change.new.is_empty(), paint);
    let arch = change.arch.as_ref().map(|arch| format!(":{arch}")).unwrap_or_default();
    let name = format!("{} {}{arch}", change.ecosystem.as_str(), change.name);
    let side = |versions: &BTreeSet<String>| versions.iter().cloned().collect::<Vec<_>>().join(", ");
    let sides: Vec<String> =
        [&change.old, &change.new].into_iter().filter(|side| !side.is_empty()).map(side).collect();
    [sign, name, sides.join(" → ")]
}

fn file_cells(path: &TreePath, difference: &Difference<'_>, paint: Paint) -> [String; 3] {
    let what = match difference {
        Difference::Added(entry) | Difference::Removed(entry) => kind_text(entry),
        Difference::Changed { old, new, aspects } => {
            aspects.iter().map(|aspect| aspect_text(*aspect, old, new)).collect::<Vec<_>>().join(", ")
        }
    };
    let came = matches!(difference, Difference::Added(_));
    let went = matches!(difference, Difference::Removed(_));
    [sign(came, went, paint), path.to_string(), what]
}

/// What an entry is, for people.
fn kind_text(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Dir => "folder".into(),
        Kind::File { size, .. } => ByteSize(*size).to_string(),
        Kind::Symlink { target } => format!("link to {}", String::from_utf8_lossy(target).escape_debug()),
        Kind::Char { major, minor } => format!("character device {major}:{minor}"),
        Kind::Block { major, minor } => format!("block device {major}:{minor}"),
        Kind::Fifo => "named pipe".into(),
        Kind::Socket => "socket".into(),
    }
}

fn aspect_text(aspect: Aspect, old: &Entry, new: &Entry) -> String {
    let (before, after) = (&old.meta, &new.meta);
    match aspect {
        Aspect::Kind => format!("{} → {}", kind_text(old), kind_text(new)),
        Aspect::Content => match (kind_text(old), kind_text(new)) {
            (old, new) if old == new => format!("content ({old})"),
            (old, new) => format!("content ({old} → {new})"),
        },
        Aspect::Mode => format!("mode {:04o} → {:04o}", before.mode, after.mode),
        Aspect::Owner => format!("owner {}:{} → {}:{}", before.uid, before.gid, after.uid, after.gid),
        Aspect::Attributes | Aspect::Links | Aspect::Time => aspect.as_str().into(),
    }
}

fn config_json(change: &Change) -> Value {
    json!({ "path": change.path, "old": change.from, "new": change.to })
}

fn package_json(change: &PackageChange) -> Value {
    json!({
        "ecosystem": change.ecosystem.as_str(),
        "name": change.name,
        "arch": change.arch,
        "old": change.old,
        "new": change.new,
    })
}

fn file_json(path: &TreePath, difference: &Difference<'_>) -> Value {
    match difference {
        Difference::Added(entry) => {
            json!({ "path": path.to_string(), "change": "added", "new": entry_json(entry) })
        }
        Difference::Removed(entry) => {
            json!({ "path": path.to_string(), "change": "removed", "old": entry_json(entry) })
        }
        Difference::Changed { old, new, aspects } => json!({
            "path": path.to_string(),
            "change": "changed",
            "aspects": aspects.iter().map(|aspect| aspect.as_str()).collect::<Vec<_>>(),
            "old": entry_json(old),
            "new": entry_json(new),
        }),
    }
}

fn entry_json(entry: &Entry) -> Value {
    let digest = match &entry.kind {
        Kind::File { digest, .. } => Some(digest.to_string()),
        _ => None,
    };
    json!({
        "is": kind_text(entry),
        "digest": digest,
        "mode": format!("{:04o}", entry.meta.mode),
        "uid": entry.meta.uid,
        "gid": entry.meta.gid,
        "mtime": entry.meta.mtime.secs,
    })
}
