//! What must hold of an image's files, packages and config, looked up without booting it.

use std::collections::BTreeSet;

use kiln_model::image::Image;
use kiln_model::recipe::{ExpectedFile, ExpectedPackage, Inspection};
use kiln_store::{Entry, Kind, ReadError, Store, Tree, TreePath};

use crate::accounts::{AccountError, Accounts};
use crate::inventory::{Inventory, InventoryError};

/// The bits by which a program runs with its file's user or group.
const SETUID_SETGID: u16 = 0o6000;

/// Offenders that are named; the rest is counted.
const NAMED_MAX: usize = 5;

/// Why an image can't be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A part of it is missing or damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Its packages can't be listed.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// Returns what does not hold, a line for each, for people; nothing where all does.
///
/// # Errors
/// See [`InspectError`].
pub fn inspect(store: &Store, image: &Image, asked: &Inspection) -> Result<Vec<String>, InspectError> {
    let tree = store.trees.load(&image.tree)?;
    let accounts = match Accounts::read(&tree, &store.objects) {
        Ok(accounts) => accounts,
        Err(AccountError::Read(error)) => return Err(error.into()),
        // Nobody is looked up yet.
        Err(AccountError::Unknown { .. }) => Accounts::default(),
    };
    let mut wrong = Vec::new();
    for file in &asked.files {
        wrong.extend(file_fault(&tree, &accounts, file));
    }
    if !asked.packages.is_empty() {
        let inventory = Inventory::of(store, image)?;
        wrong.extend(asked.packages.iter().filter_map(|package| package_fault(&inventory, package)));
    }
    if asked.no_root {
        wrong.extend(root_fault(&accounts, &image.config.user));
    }
    if asked.no_setuid {
        wrong.extend(setuid_fault(&tree));
    }
    Ok(wrong)
}

fn file_fault(tree: &Tree, accounts: &Accounts, file: &ExpectedFile) -> Option<String> {
    let path = &file.path;
    let found = TreePath::parse(path).ok().and_then(|path| tree.resolve(&path, !file.absent).ok());
    let entry = found.and_then(|path| tree.get(&path));
    match entry {
        Some(_) if file.absent => Some(format!("{path} is there")),
        None if !file.absent => Some(format!("{path} is not there")),
        Some(entry) => attribute_fault(entry, accounts, file),
        None => None,
    }
}

fn attribute_fault(entry: &Entry, accounts: &Accounts, file: &ExpectedFile) -> Option<String> {
    let (path, meta) = (&file.path, &entry.meta);
    if let Some(mode) = file.mode.filter(|mode| *mode != meta.mode) {
        return Some(format!("{path} has mode {:04o}, not {mode:04o}", meta.mode));
    }
    let owner = file.owner.as_ref()?;
    let wanted = match accounts.resolve(owner) {
        Ok(wanted) => wanted,
        Err(error) => return Some(format!("{path} can't belong to {owner}: {error}")),
    };
    // Without a group any will do, as in `chown`.
    let is_group = !owner.contains(':') || wanted.gid == meta.gid;
    let belongs = wanted.uid == meta.uid && is_group;
    (!belongs).then(|| format!("{path} belongs to {}:{}, not to {owner}", meta.uid, meta.gid))
}

fn package_fault(inventory: &Inventory, asked: &ExpectedPackage) -> Option<String> {
    let named = inventory.packages.iter().filter(|package| package.name == asked.name);
    let versions: BTreeSet<&str> = named.map(|package| package.version.as_str()).collect();
    let is_there = match &asked.version {
        Some(version) => versions.contains(version.as_str()),
        None => !versions.is_empty(),
    };
    let name = &asked.name;
    let found = versions.iter().copied().collect::<Vec<_>>().join(", ");
    match (is_there, asked.absent, &asked.version) {
        (true, true, _) => Some(format!("package {name} {found} is there")),
        (false, false, Some(version)) if !versions.is_empty() => {
            Some(format!("package {name} is there as {found}, not as {version}"))
        }
        (false, false, _) => Some(format!("package {name} is not there")),
        _ => None,
    }
}

fn root_fault(accounts: &Accounts, user: &str) -> Option<String> {
    match accounts.resolve(user) {
        Ok(resolved) if resolved.uid != 0 => None,
        Ok(_) if user.is_empty() => Some("its user is root: it names none".into()),
        Ok(_) => Some(format!("its user {user} is root")),
        Err(error) => Some(format!("its user {user} is nobody: {error}")),
    }
}

fn setuid_fault(tree: &Tree) -> Option<String> {
    let is_privileged =
        |entry: &Entry| matches!(entry.kind, Kind::File { .. }) && entry.meta.mode & SETUID_SETGID != 0;
    let found: Vec<String> =
        tree.iter().filter(|(_, entry)| is_privileged(entry)).map(|(path, _)| path.to_string()).collect();
    let more = found.len().saturating_sub(NAMED_MAX);
    let named = found.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match (found.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("setuid or setgid: {named}")),
        (false, more) => Some(format!("setuid or setgid: {named} and {more} more")),
    }
}
