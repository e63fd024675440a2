//! Which known vulnerabilities an image's software has, by a database that the user supplies.
//!
//! The database is read once and only what matches is kept, so its size costs time and no memory. Nothing is fetched.

mod database;
mod entry;
#[cfg(test)]
mod fuzz;
mod maven;
mod order;
mod pep440;
mod semver;
mod severity;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use database::{DatabaseError, DatabaseInfo};

use kiln_model::recipe::Severity;

use crate::inventory::{Ecosystem, Inventory, Package};
use entry::{Entry, canonical};

/// What a database says about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vulnerabilities {
    /// The database.
    pub database: DatabaseInfo,
    /// What was found, the worst first.
    pub findings: Vec<Finding>,
    /// The packages of which nothing can be said, and why.
    pub unchecked: Vec<(String, &'static str)>,
}

/// One vulnerability of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its name: the CVE's where it has one.
    pub id: String,
    /// Its other names.
    pub aliases: Vec<String>,
    /// Where the package comes from.
    pub ecosystem: Ecosystem,
    /// The package, as the image names it.
    pub package: String,
    /// The version that is in the image.
    pub version: String,
    /// The first version without it, where one is named. Of Debian it is that of the source package.
    pub fixed: Option<String>,
    /// How bad it is; none where no entry says so.
    pub severity: Option<Severity>,
}

impl Finding {
    /// Returns how bad it is taken to be: what nobody scored is not harmless.
    pub fn counted(&self) -> Severity {
        self.severity.unwrap_or(Severity::Medium)
    }
}

/// Packages by the name that databases have for them, as places in the inventory.
type Wanted = BTreeMap<(Ecosystem, String), Vec<usize>>;

/// Matches an inventory with a database: a folder of JSON files in the OSV schema, one such file, or a zip archive of them.
///
/// # Errors
/// A part of the database can't be read, or it is empty.
pub fn vulnerabilities(inventory: &Inventory, database: &Path) -> Result<Vulnerabilities, DatabaseError> {
    let (wanted, unchecked) = wanted(inventory);
    let release =
        inventory.system.as_ref().map(|system| &system.version[..]).filter(|version| !version.is_empty());
    let mut hits: BTreeMap<usize, Vec<Finding>> = BTreeMap::new();
    let database = database::read(database, &mut |entry| {
        if entry.withdrawn.is_none() {
            collect(&entry, inventory, &wanted, release, &mut hits);
        }
    })?;
    let mut findings: Vec<Finding> = hits.into_values().flat_map(merged).collect();
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.package.clone(), finding.version.clone(), finding.id.clone());
        b.counted().cmp(&a.counted()).then_with(|| key(a).cmp(&key(b)))
    });
    findings.dedup();
    Ok(Vulnerabilities { database, findings, unchecked })
}

/// Which packages can be looked for, by the names that databases have for them.
fn wanted(inventory: &Inventory) -> (Wanted, Vec<(String, &'static str)>) {
    let (mut wanted, mut unchecked) = (Wanted::new(), Vec::new());
    for (index, package) in inventory.packages.iter().enumerate() {
        let foreign = inventory.system.as_ref().is_some_and(|system| system.id != "debian");
        let reason = match package.ecosystem {
            Ecosystem::Debian if foreign => Some("its distribution is not Debian"),
            _ if package.version.is_empty() => Some("its version is not known"),
            Ecosystem::Maven if !package.name.contains(':') => Some("its group is not known"),
            _ => None,
        };
        if let Some(reason) = reason {
            unchecked.push((package.name.clone(), reason));
            continue;
        }
        let name = canonical(package.ecosystem, looked_up(package).0);
        wanted.entry((package.ecosystem, name)).or_default().push(index);
    }
    (wanted, unchecked)
}

/// The name and the version that databases know: Debian's are those of source packages.
fn looked_up(package: &Package) -> (&str, &str) {
    let source = package.source.as_ref().map(|source| (&source.name[..], &source.version[..]));
    source.unwrap_or((&package.name, &package.version))
}

fn collect(
    entry: &Entry,
    inventory: &Inventory,
    wanted: &Wanted,
    release: Option<&str>,
    hits: &mut BTreeMap<usize, Vec<Finding>>,
) {
    for affected in &entry.affected {
        let Some((ecosystem, of_release, name)) = affected.package() else { continue };
        // What names no release, on either side, could be meant.
        if ecosystem == Ecosystem::Debian && release.zip(of_release).is_some_and(|(a, b)| a != b) {
            continue;
        }
        for index in wanted.get(&(ecosystem, name)).into_iter().flatten() {
            let package = &inventory.packages[*index];
            let Some(found) = affected.matches(ecosystem, looked_up(package).1) else { continue };
            hits.entry(*index).or_default().push(Finding {
                id: entry.id.clone(),
                aliases: entry.names().skip(1).map(str::to_owned).collect(),
                ecosystem,
                package: package.name.clone(),
                version: package.version.clone(),
                fixed: found.fixed,
                severity: entry.severity(affected),
            });
        }
    }
}

/// Makes one finding of those of a package that share a name.
fn merged(findings: Vec<Finding>) -> Vec<Finding> {
    let mut groups: Vec<(BTreeSet<String>, Finding)> = Vec::new();
    for finding in findings {
        let mut names: BTreeSet<String> = finding.aliases.iter().cloned().collect();
        names.insert(finding.id.clone());
        let mut joined = finding;
        // It may be what joins two groups.
        let (same, apart): (Vec<_>, Vec<_>) =
            groups.into_iter().partition(|(others, _)| !others.is_disjoint(&names));
        groups = apart;
        for (others, other) in same {
            names.extend(others);
            joined.severity = joined.severity.max(other.severity);
            joined.fixed = other.fixed.or(joined.fixed);
        }
        groups.push((names, joined));
    }
    let named = |(names, finding): (BTreeSet<String>, Finding)| {
        let first = names.iter().find(|name| name.starts_with("CVE-")).or_else(|| names.first());
        let id = first.cloned().unwrap_or_default();
        Finding { aliases: names.into_iter().filter(|name| *name != id).collect(), id, ..finding }
    };
    groups.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests;
