//! Debian packages: dpkg's database, exactly, with the licences of machine-readable copyright files.
//!
//! Source: Debian Policy, chapter 5, and deb-substvars(5) for the source's version; DEP-5 for copyright files.

use kiln_store::{Kind, ReadError, TreePath};

use super::System;
use super::licence::Licence;
use super::package::{Ecosystem, Package, SourcePackage};
use super::purl::purl;
use super::scan::Scan;
use crate::debian::control::{Paragraph, paragraphs};

/// Debian as a whole has 60,000 packages of a kilobyte each.
const STATUS_BYTES_MAX: u64 = 64 << 20;

/// The longest of Debian's, the kernel's and the browsers', have some hundred kilobytes.
const COPYRIGHT_BYTES_MAX: u64 = 4 << 20;

/// A dozen lines.
const RELEASE_BYTES_MAX: u64 = 64 << 10;

const STATUS: &str = "var/lib/dpkg/status";

/// A file for each package, in images that were made without dpkg.
pub(super) const STATUS_FOLDER: &str = "var/lib/dpkg/status.d";

/// Returns the distribution that the tree says to be.
pub(super) fn system(scan: &mut Scan<'_>) -> Result<Option<System>, ReadError> {
    for place in ["etc/os-release", "usr/lib/os-release"] {
        let Some(path) = scan.resolve(&constant(place)) else { continue };
        let Some(bytes) = scan.read(&path, RELEASE_BYTES_MAX)? else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            let value = line.map(|value| value.trim().trim_matches(['"', '\'']).to_owned());
            // Its values become parts of URLs.
            value.filter(|value| {
                value.len() < 64 && value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            })
        };
        if let Some(id) = value("ID").filter(|id| !id.is_empty()) {
            return Ok(Some(System { id, version: value("VERSION_ID").unwrap_or_default() }));
        }
    }
    Ok(None)
}

/// Reads dpkg's database.
pub(super) fn read(scan: &mut Scan<'_>, system: Option<&System>) -> Result<(), ReadError> {
    let mut files = vec![constant(STATUS)];
    let is_paragraph = |path: &TreePath| !path.name().ends_with(b".md5sums");
    files.extend(
        scan.tree
            .children(&constant(STATUS_FOLDER))
            .filter(|(path, entry)| matches!(entry.kind, Kind::File { .. }) && is_paragraph(path))
            .map(|(path, _)| path.clone()),
    );
    for path in files {
        let Some(bytes) = scan.read(&path, STATUS_BYTES_MAX)? else { continue };
        let text = String::from_utf8_lossy(&bytes);
        for paragraph in paragraphs(&text) {
            read_paragraph(scan, &path, paragraph, system)?;
        }
    }
    Ok(())
}

fn read_paragraph(
    scan: &mut Scan<'_>,
    path: &TreePath,
    paragraph: Paragraph<'_>,
    system: Option<&System>,
) -> Result<(), ReadError> {
    // A package that was removed leaves its paragraph where its configuration stayed.
    let status = paragraph.get("Status").map(|status| status.rsplit(' ').next().unwrap_or(""));
    if matches!(status, Some("config-files" | "not-installed")) {
        return Ok(());
    }
    let fields = [paragraph.get("Package"), paragraph.get("Version"), paragraph.get("Architecture")];
    let [Some(name), Some(version), arch] = fields else {
        scan.omit(path, "a paragraph of it names no package");
        return Ok(());
    };
    let arch = arch.unwrap_or_default();
    let (vendor, distro) = match system {
        Some(System { id, version }) if !version.is_empty() => (id.as_str(), format!("{id}-{version}")),
        Some(System { id, .. }) => (id.as_str(), id.clone()),
        None => ("debian", String::new()),
    };
    let url = purl("deb", vendor, name, version, &[("arch", arch), ("distro", &distro)]);
    let mut package = Package::new(Ecosystem::Debian, name, version, Some(url));
    package.arch = Some(arch.to_owned()).filter(|arch| !arch.is_empty());
    package.source = paragraph.get("Source").map(|source| source_of(source, version));
    let one_line = |text: &&str| !text.contains(char::is_control) && text.len() <= 256;
    package.supplier = paragraph.get("Maintainer").filter(one_line).map(str::to_owned);
    package.licence = licence(scan, name)?;
    scan.add(path, package);
    Ok(())
}

/// Reads `NAME` or `NAME (VERSION)`.
fn source_of(field: &str, version: &str) -> SourcePackage {
    let (name, rest) = field.split_once('(').unwrap_or((field, ""));
    let own = rest.trim().trim_end_matches(')').trim();
    let version = if own.is_empty() { version } else { own };
    SourcePackage { name: name.trim().to_owned(), version: version.to_owned() }
}

/// Returns what a package's copyright file names; none where it is missing or for people only.
fn licence(scan: &mut Scan<'_>, package: &str) -> Result<Option<Licence>, ReadError> {
    let Ok(path) = TreePath::parse(format!("usr/share/doc/{package}/copyright")) else { return Ok(None) };
    // A package's folder may be a link to that of another of the same source.
    let Some(path) = scan.resolve(&path) else { return Ok(None) };
    let Some(bytes) = scan.read(&path, COPYRIGHT_BYTES_MAX)? else { return Ok(None) };
    Ok(Licence::of_copyright_file(&String::from_utf8_lossy(&bytes)))
}

pub(super) fn constant(path: &str) -> TreePath {
    TreePath::parse(path).expect("the constants above are valid paths")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_has_the_binarys_version_unless_it_names_its_own() {
        let source = |name: &str, version: &str| SourcePackage { name: name.into(), version: version.into() };
        assert_eq!(source_of("glibc", "2.36-9"), source("glibc", "2.36-9"));
        assert_eq!(source_of("bash (5.2.15-2)", "5.2.15-2+b2"), source("bash", "5.2.15-2"));
        assert_eq!(source_of("x (", "1"), source("x", "1"));
    }
}
