//! JavaScript packages: what lies in `node_modules`, and what lock files name.
//!
//! Source: npm's `package-json` and `package-lock-json` pages, lock versions 1 to 3.

use std::collections::BTreeMap;

use kiln_store::{ReadError, TreePath};
use serde::Deserialize;

use super::licence::Licence;
use super::package::{Ecosystem, Package};
use super::purl::purl;
use super::scan::Scan;

/// Some packages keep long lists in it.
const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// The locks of the largest programs have 3 MB; a hostile one of this size takes some hundred megabytes of memory.
const LOCK_BYTES_MAX: u64 = 8 << 20;

/// The folder in which packages are.
const MODULES: &[u8] = b"node_modules";

#[derive(Deserialize)]
struct Manifest {
    name: Option<String>,
    version: Option<String>,
    license: Option<LicenceField>,
}

/// A word now; an object in the oldest packages.
#[derive(Deserialize)]
#[serde(untagged)]
enum LicenceField {
    Word(String),
    Object {
        #[serde(rename = "type")]
        kind: String,
    },
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Lock {
    /// By path, since version 2.
    packages: Option<BTreeMap<String, LockedPackage>>,
    /// By name, in version 1.
    dependencies: Option<BTreeMap<String, LockedDependency>>,
}

#[derive(Deserialize)]
struct LockedPackage {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    link: bool,
    license: Option<LicenceField>,
}

#[derive(Deserialize)]
struct LockedDependency {
    version: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    dependencies: BTreeMap<String, LockedDependency>,
}

/// Whether a path is `node_modules/NAME/package.json` or `node_modules/@SCOPE/NAME/package.json`.
pub(super) fn is_manifest(path: &TreePath) -> bool {
    if path.name() != b"package.json" {
        return false;
    }
    let names: Vec<&[u8]> = path.names().collect();
    match names[..] {
        [.., scope, _, _] if scope.starts_with(b"@") => names.iter().rev().nth(3) == Some(&MODULES),
        [.., folder, _, _] => folder == MODULES,
        _ => false,
    }
}

/// Whether a path is that of a program's lock. A package's own says what its makers had, not what is here.
pub(super) fn is_lock(path: &TreePath) -> bool {
    matches!(path.name(), b"package-lock.json" | b"npm-shrinkwrap.json")
        && !path.names().any(|name| name == MODULES)
}

/// Reads a package's manifest.
pub(super) fn read_manifest(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(bytes) = scan.read(path, MANIFEST_BYTES_MAX)? else { return Ok(()) };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else {
        scan.omit(path, "it is not a package's manifest");
        return Ok(());
    };
    // A manifest without a name is a setting for a folder of a package, not a package.
    let (Some(name), Some(version)) = (manifest.name, manifest.version) else { return Ok(()) };
    match package(&name, &version, manifest.license) {
        Some(package) => scan.add(path, package),
        None => scan.omit(path, "it names no JavaScript package"),
    }
    Ok(())
}

/// Reads a program's lock; what it has for development alone is left out.
pub(super) fn read_lock(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(bytes) = scan.read(path, LOCK_BYTES_MAX)? else { return Ok(()) };
    let Ok(lock) = serde_json::from_slice::<Lock>(&bytes) else {
        scan.omit(path, "it is not npm's lock");
        return Ok(());
    };
    let Some(packages) = lock.packages else {
        read_dependencies(scan, path, lock.dependencies.unwrap_or_default());
        return Ok(());
    };
    for (place, locked) in packages {
        // Other places than `node_modules` are the program itself and its own parts.
        let Some((_, in_place)) = place.rsplit_once("node_modules/") else { continue };
        let name = locked.name.as_deref().unwrap_or(in_place);
        if locked.dev || locked.link {
            continue;
        }
        if let Some(package) = locked.version.and_then(|version| package(name, &version, locked.license)) {
            scan.add(path, package);
        }
    }
    Ok(())
}

/// The JSON reader goes 128 deep, so this does.
fn read_dependencies(scan: &mut Scan<'_>, path: &TreePath, dependencies: BTreeMap<String, LockedDependency>) {
    for (name, locked) in dependencies {
        if locked.dev {
            continue;
        }
        if let Some(package) = locked.version.and_then(|version| package(&name, &version, None)) {
            scan.add(path, package);
        }
        read_dependencies(scan, path, locked.dependencies);
    }
}

fn package(name: &str, version: &str, licence: Option<LicenceField>) -> Option<Package> {
    let (scope, plain) = match name.strip_prefix('@') {
        Some(rest) => {
            let (scope, plain) = rest.split_once('/')?;
            (format!("@{scope}"), plain)
        }
        None => (String::new(), name),
    };
    // A version is never a URL: where a lock has one, the package is not the registry's.
    let is_version = version.starts_with(|first: char| first.is_ascii_digit());
    let is_name = !plain.is_empty() && !plain.contains('/');
    let url = is_version.then(|| purl("npm", &scope, plain, version, &[]));
    let mut package = is_name.then(|| Package::new(Ecosystem::Npm, name, version, url))?;
    package.licence = match licence {
        Some(LicenceField::Word(text) | LicenceField::Object { kind: text }) => Licence::of_expression(&text),
        Some(LicenceField::Other(_)) | None => None,
    };
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn packages_are_what_lies_directly_in_node_modules() {
        for yes in [
            "app/node_modules/a/package.json",
            "node_modules/@s/a/package.json",
            "x/node_modules/a/node_modules/b/package.json",
        ] {
            assert!(is_manifest(&path(yes)), "{yes}");
        }
        for no in [
            "app/package.json",
            "node_modules/a/lib/package.json",
            "node_modules/package.json",
            "@s/a/package.json",
        ] {
            assert!(!is_manifest(&path(no)), "{no}");
        }
        assert!(
            is_lock(&path("app/package-lock.json")) && !is_lock(&path("node_modules/a/package-lock.json"))
        );
    }

    #[test]
    fn scopes_are_namespaces_and_urls_are_no_versions() {
        let scoped =
            package("@s/a", "1.0.0", Some(LicenceField::Word("(MIT OR Apache-2.0)".into()))).unwrap();
        assert_eq!(scoped.purl.unwrap(), "pkg:npm/%40s/a@1.0.0");
        assert_eq!(scoped.licence.unwrap().expression, "(MIT OR Apache-2.0)");
        assert_eq!(package("a", "git+ssh://x", None).unwrap().purl, None);
        assert_eq!(package("@s", "1", None), None);
        assert_eq!(package("a/b", "1", None), None);
    }
}
