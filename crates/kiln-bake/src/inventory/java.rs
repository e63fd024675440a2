//! Java artifacts: what jars say of themselves, and the jars within them.
//!
//! Source: Maven's archiver page for `pom.properties`, and the jar file specification for the manifest.

use std::io;

use kiln_store::{ReadError, TreePath};

use super::archive::{self, ArchiveError, JAR_DIRECTORY_BYTES_MAX};
use super::bytes::Bytes;
use super::package::{Ecosystem, Package};
use super::purl::purl;
use super::scan::Scan;

/// A jar in a jar in an archive of an application: deeper are only bombs.
const DEPTH_MAX: usize = 4;

/// The largest libraries have 100 MB. A nested one is unpacked in memory.
const NESTED_BYTES_MAX: u64 = 64 << 20;

/// The largest applications bring a few hundred.
const NESTED_MAX: usize = 20_000;

/// What is unpacked of one file of the tree: an application with all that it brings.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

/// Properties are a few lines, and a manifest one line for each signed class.
const TEXT_BYTES_MAX: u64 = 8 << 20;

const MANIFEST: &[u8] = b"META-INF/MANIFEST.MF";

/// Whether a file's name is that of a jar or of an archive of jars.
pub(super) fn is_archive(name: &[u8]) -> bool {
    [".jar", ".war", ".ear", ".par"].iter().any(|ending| name.len() > 4 && name.ends_with(ending.as_bytes()))
}

/// Reads a jar with all that is in it.
pub(super) fn read(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(file) = scan.open(path)? else { return Ok(()) };
    if !scan.is_new_program(path) {
        return Ok(());
    }
    scan.verify(path)?;
    let mut reading = Reading { scan, path, left: UNPACKED_BYTES_MAX, nested: 0 };
    let read = reading.archive(&file, path.name(), 0);
    read.map_err(|source| ReadError::Io { path: path.to_string().into(), source })
}

struct Reading<'a, 'b> {
    scan: &'a mut Scan<'b>,
    path: &'a TreePath,
    /// How many bytes may still be unpacked.
    left: u64,
    /// How many jars within were read.
    nested: usize,
}

impl Reading<'_, '_> {
    fn archive(&mut self, archive: &(impl Bytes + ?Sized), name: &[u8], depth: usize) -> io::Result<()> {
        let Some(members) = self.refused(name, archive::members(archive, JAR_DIRECTORY_BYTES_MAX))? else {
            return Ok(());
        };
        let mut named = false;
        for member in members.iter().filter(|member| is_properties(&member.name)) {
            let Some(text) = self.member(archive, member, name, TEXT_BYTES_MAX)? else { continue };
            if let Some(package) = of_properties(&String::from_utf8_lossy(&text)) {
                self.scan.add(self.path, package);
                named = true;
            }
        }
        if !named {
            let manifest = members.iter().find(|member| member.name == MANIFEST);
            let text = match manifest {
                Some(manifest) => self.member(archive, manifest, name, TEXT_BYTES_MAX)?,
                None => None,
            };
            let package = of_manifest(&String::from_utf8_lossy(&text.unwrap_or_default()), name);
            self.scan.add(self.path, package);
        }
        for member in members.iter().filter(|member| is_archive(&member.name)) {
            if depth == DEPTH_MAX {
                self.scan.omit(self.path, format!("jars lie more than {DEPTH_MAX} deep in it"));
                break;
            }
            self.nested += 1;
            if self.nested > NESTED_MAX {
                self.scan.omit(self.path, format!("more than {NESTED_MAX} jars lie in it"));
                break;
            }
            if let Some(nested) = self.member(archive, member, name, NESTED_BYTES_MAX)? {
                self.archive(&nested[..], &member.name, depth + 1)?;
            }
        }
        Ok(())
    }

    fn member(
        &mut self,
        archive: &(impl Bytes + ?Sized),
        member: &archive::Member,
        name: &[u8],
        limit: u64,
    ) -> io::Result<Option<Vec<u8>>> {
        let limit = limit.min(self.left);
        let bytes = self.refused(name, archive::read(archive, member, limit))?;
        self.left -= bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Ok(bytes)
    }

    /// Notes what an archive is refused for.
    fn refused<T>(&mut self, name: &[u8], read: Result<T, ArchiveError>) -> io::Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(ArchiveError::Io(error)) => Err(error),
            Err(ArchiveError::Refused(reason)) => {
                let name = String::from_utf8_lossy(name).escape_debug().to_string();
                self.scan.omit(self.path, format!("{name}: {reason}"));
                Ok(None)
            }
        }
    }
}

/// Whether a member is `META-INF/maven/GROUP/ARTIFACT/pom.properties`.
fn is_properties(name: &[u8]) -> bool {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    matches!(parts[..], [b"META-INF", b"maven", _, _, b"pom.properties"])
}

fn of_properties(text: &str) -> Option<Package> {
    let value = |key: &str| {
        let value =
            text.lines().find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='))?;
        Some(value.trim()).filter(|value| is_word(value))
    };
    let (group, artifact, version) = (value("groupId")?, value("artifactId")?, value("version")?);
    let url = purl("maven", group, artifact, version, &[]);
    Some(Package::new(Ecosystem::Maven, &format!("{group}:{artifact}"), version, Some(url)))
}

/// Names a jar by its manifest, else by its file. Without a group it has no public name.
fn of_manifest(text: &str, file: &[u8]) -> Package {
    // A line that begins with a blank goes on the one before.
    let text = text.replace("\r\n", "\n").replace("\n ", "");
    let value = |key: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        value.map(str::trim).filter(|value| is_word(value))
    };
    let file = String::from_utf8_lossy(file.rsplit(|byte| *byte == b'/').next().unwrap_or(file)).into_owned();
    let stem = file.rsplit_once('.').map_or(file.as_str(), |(stem, _)| stem);
    let (name, in_name) = split_version(stem);
    // A bundle's name may be followed by directives.
    let symbolic = value("Bundle-SymbolicName").and_then(|value| value.split(';').next());
    let version = ["Implementation-Version", "Bundle-Version"].iter().find_map(|key| value(key));
    let (name, version) = (symbolic.unwrap_or(name), version.unwrap_or(in_name));
    Package::new(Ecosystem::Maven, name, version, None)
}

/// Splits `NAME-1.2.3` before the first part that begins with a digit.
fn split_version(stem: &str) -> (&str, &str) {
    let at = stem
        .match_indices('-')
        .map(|(at, _)| at)
        .find(|at| stem[at + 1..].starts_with(|first: char| first.is_ascii_digit()));
    at.filter(|at| *at > 0).map_or((stem, ""), |at| (&stem[..at], &stem[at + 1..]))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_name_group_artifact_and_version() {
        let package =
            of_properties("#Generated\nversion=2.17.1\ngroupId = org.apache\nartifactId=log4j-core\n")
                .unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("org.apache:log4j-core", "2.17.1"));
        assert_eq!(package.purl.unwrap(), "pkg:maven/org.apache/log4j-core@2.17.1");
        assert_eq!(of_properties("version=${v}\ngroupId=a\nartifactId=b"), None);
    }

    #[test]
    fn a_manifest_or_else_the_files_name_says_what_a_jar_is() {
        let named = of_manifest(
            "Bundle-SymbolicName: org.x.lib;singleton:=tr\r\n ue\r\nBundle-Version: 1.2\r\n",
            b"lib/x.jar",
        );
        assert_eq!((named.name.as_str(), named.version.as_str()), ("org.x.lib", "1.2"));
        let plain = of_manifest("Manifest-Version: 1.0\n", b"BOOT-INF/lib/snake-yaml-1.33.jar");
        assert_eq!((plain.name.as_str(), plain.version.as_str(), plain.purl), ("snake-yaml", "1.33", None));
        assert_eq!(split_version("-1"), ("-1", ""));
    }

    #[test]
    fn only_properties_of_maven_are_properties() {
        assert!(is_properties(b"META-INF/maven/g/a/pom.properties"));
        assert!(
            !is_properties(b"META-INF/maven/a/pom.properties")
                && !is_properties(b"x/META-INF/maven/g/a/pom.properties")
        );
    }
}
