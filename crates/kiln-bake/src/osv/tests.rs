//! Inventories against small databases.

use std::collections::BTreeSet;
use std::fs;

use kiln_model::Digest;
use serde_json::{Value, json};

use super::*;
use crate::inventory::{SourcePackage, System};

pub(super) fn package(ecosystem: Ecosystem, name: &str, version: &str) -> Package {
    Package {
        ecosystem,
        name: name.into(),
        version: version.into(),
        arch: None,
        source: None,
        supplier: None,
        licence: None,
        purl: None,
        found: BTreeSet::new(),
    }
}

fn found(system: Option<(&str, &str)>, packages: Vec<Package>, entries: Value) -> Vulnerabilities {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.json");
    fs::write(&path, entries.to_string()).unwrap();
    let system = system.map(|(id, version)| System { id: id.into(), version: version.into() });
    let image = Digest::new([0; 32]);
    let inventory = Inventory { image, created: String::new(), system, packages, omissions: Vec::new() };
    vulnerabilities(&inventory, &path).unwrap()
}

pub(super) fn entry(id: &str, ecosystem: &str, name: &str, fixed: &str, more: Value) -> Value {
    let events = json!([{ "introduced": "0" }, { "fixed": fixed }]);
    let mut entry = json!({ "id": id, "modified": "2026-01-01T00:00:00Z", "affected": [{
        "package": { "ecosystem": ecosystem, "name": name },
        "ranges": [{ "type": "ECOSYSTEM", "events": events }],
    }] });
    entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    entry
}

fn ids(found: &Vulnerabilities) -> Vec<&str> {
    found.findings.iter().map(|finding| finding.id.as_str()).collect()
}

#[test]
fn debian_is_matched_by_source_package_and_release() {
    let mut ssl = package(Ecosystem::Debian, "libssl3", "3.0.1-1");
    ssl.source = Some(SourcePackage { name: "openssl".into(), version: "3.0.1-1".into() });
    let entries = json!([
        entry("DEBIAN-CVE-1", "Debian:12", "openssl", "3.0.2-1", json!({ "upstream": ["CVE-1"] })),
        entry("DEBIAN-CVE-2", "Debian:11", "openssl", "3.0.2-1", json!({})),
        entry("DEBIAN-CVE-3", "Debian:12", "libssl3", "3.0.2-1", json!({})),
        entry("DSA-4", "Debian:12", "openssl", "3.0.1-1", json!({})),
    ]);
    let on_12 = found(Some(("debian", "12")), vec![ssl.clone()], entries.clone());
    assert_eq!(ids(&on_12), ["CVE-1"]);
    let finding = &on_12.findings[0];
    assert_eq!((finding.package.as_str(), finding.fixed.as_deref()), ("libssl3", Some("3.0.2-1")));
    assert_eq!((finding.severity, finding.counted()), (None, Severity::Medium));
    // Of which release the packages are is not known: any could be meant.
    assert_eq!(ids(&found(None, vec![ssl.clone()], entries.clone())), ["CVE-1", "DEBIAN-CVE-2"]);
    let elsewhere = found(Some(("ubuntu", "24.04")), vec![ssl], entries);
    assert_eq!((ids(&elsewhere).len(), elsewhere.unchecked.len()), (0, 1));
}

#[test]
fn names_of_one_vulnerability_make_one_finding_and_the_worst_word_counts() {
    let high = json!({ "aliases": ["CVE-7"], "database_specific": { "severity": "HIGH" } });
    let low = json!({ "aliases": ["CVE-7"], "database_specific": { "severity": "LOW" } });
    let entries = json!([
        entry("GHSA-a", "PyPI", "flask-login", "2.0", high),
        entry("PYSEC-b", "PyPI", "Flask.Login", "2.0", low),
        entry("PYSEC-c", "PyPI", "flask-login", "2.0", json!({})),
        entry("PYSEC-d", "PyPI", "flask-login", "2.0", json!({ "withdrawn": "2026-01-01T00:00:00Z" })),
        entry("PYSEC-e", "npm", "flask-login", "2.0", json!({})),
    ]);
    let found = found(None, vec![package(Ecosystem::Python, "Flask_Login", "1.0")], entries);
    assert_eq!(ids(&found), ["CVE-7", "PYSEC-c"]);
    assert_eq!(found.findings[0].aliases, ["GHSA-a", "PYSEC-b"]);
    assert_eq!(found.findings[0].severity, Some(Severity::High));
    assert_eq!((found.database.entries, found.database.modified.as_str()), (5, "2026-01-01T00:00:00Z"));
}

#[test]
fn an_entry_that_names_two_groups_makes_them_one() {
    let packages = vec![package(Ecosystem::Go, "example.org/m", "v1.0.0")];
    let entries = json!([
        entry("GHSA-a", "Go", "example.org/m", "1.1.0", json!({})),
        entry("CVE-b", "Go", "example.org/m", "1.1.0", json!({})),
        entry("GO-c", "Go", "example.org/m", "1.1.0", json!({ "aliases": ["GHSA-a", "CVE-b"] })),
    ]);
    let found = found(None, packages, entries);
    assert_eq!(ids(&found), ["CVE-b"]);
    assert_eq!(found.findings[0].aliases, ["GHSA-a", "GO-c"]);
}

#[test]
fn what_has_no_version_or_group_is_named_as_unchecked() {
    let packages = vec![
        package(Ecosystem::Maven, "log4j-core", "2.0"),
        package(Ecosystem::Maven, "org.x:y", "1.0"),
        package(Ecosystem::Npm, "left-pad", ""),
    ];
    let found = found(None, packages, json!([entry("GHSA-m", "Maven", "org.x:y", "1.0.1", json!({}))]));
    assert_eq!(ids(&found), ["GHSA-m"]);
    let unchecked: Vec<&str> = found.unchecked.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(unchecked, ["log4j-core", "left-pad"]);
}
