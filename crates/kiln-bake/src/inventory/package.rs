//! One package of an inventory.

use std::collections::BTreeSet;

use kiln_store::TreePath;

use super::licence::Licence;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ecosystem {
    /// A package of Debian or what is made from it.
    Debian,
    /// A Rust crate.
    Cargo,
    /// A Go module.
    Go,
    /// A Java artifact.
    Maven,
    /// A JavaScript package.
    Npm,
    /// A Python distribution.
    Python,
}

/// A package that is in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Where it comes from.
    pub ecosystem: Ecosystem,
    /// Its name as the ecosystem writes it; `group:artifact` for Java where the group is known.
    pub name: String,
    /// Its version; empty where nothing names one.
    pub version: String,
    /// The architecture, where packages have one.
    pub arch: Option<String>,
    /// What it was built from, where that has another name or version.
    pub source: Option<SourcePackage>,
    /// Who makes it.
    pub supplier: Option<String>,
    /// What it says that its licence is.
    pub licence: Option<Licence>,
    /// Its package URL; none where it has no public name.
    pub purl: Option<String>,
    /// The files that say that it is there; not more than a few are kept.
    pub found: BTreeSet<TreePath>,
}

/// A source package of Debian.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Ecosystem {
    pub(super) const ALL: [Self; 6] =
        [Self::Debian, Self::Cargo, Self::Go, Self::Maven, Self::Npm, Self::Python];

    /// Returns its name: the type of its package URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debian => "deb",
            Self::Cargo => "cargo",
            Self::Go => "golang",
            Self::Maven => "maven",
            Self::Npm => "npm",
            Self::Python => "pypi",
        }
    }
}

impl Package {
    /// A package of which nothing more is known.
    pub(super) fn new(ecosystem: Ecosystem, name: &str, version: &str, purl: Option<String>) -> Self {
        Self {
            ecosystem,
            name: name.to_owned(),
            version: version.to_owned(),
            arch: None,
            source: None,
            supplier: None,
            licence: None,
            purl,
            found: BTreeSet::new(),
        }
    }

    /// What tells it from every other package of an inventory.
    pub(super) fn key(&self) -> PackageKey {
        let Self { ecosystem, name, version, arch, .. } = self;
        PackageKey(*ecosystem, name.clone(), version.clone(), arch.clone())
    }

    /// Returns a word that is unique in its inventory, and the same in every other that has the package.
    pub(super) fn reference(&self) -> String {
        let Self { ecosystem, name, version, arch, purl, .. } = self;
        let plain = || format!("{}:{name}@{version}:{}", ecosystem.as_str(), arch.as_deref().unwrap_or(""));
        purl.clone().unwrap_or_else(plain)
    }
}

/// See [`Package::key`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PackageKey(Ecosystem, String, String, Option<String>);
