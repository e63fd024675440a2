//! Databases of vulnerabilities, mutated, against a package of each ecosystem.

use ::fuzz::Target;
use serde_json::json;

use super::tests::{entry, package};
use super::*;
use crate::inventory::System;

#[test]
fn vulnerabilities_of_a_database() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let (document, archive) = (folder.path().join("all.json"), folder.path().join("all.zip"));
    let packages = [
        package(Ecosystem::Debian, "openssl", "3.0.1-1"),
        package(Ecosystem::Python, "django", "4.2rc1.post2"),
        package(Ecosystem::Npm, "left-pad", "1.0.0-beta.2+x"),
        package(Ecosystem::Cargo, "time", "0.1.43"),
        package(Ecosystem::Go, "golang.org/x/net", "v0.7.0"),
        package(Ecosystem::Maven, "org.a:b", "1.0-SNAPSHOT"),
    ];
    let inventory = Inventory {
        image: kiln_model::Digest::new([0; 32]),
        created: String::new(),
        system: Some(System { id: "debian".into(), version: "12".into() }),
        packages: packages.to_vec(),
        omissions: Vec::new(),
    };
    let ecosystems = ["Debian:12", "PyPI", "npm", "crates.io", "Go", "Maven"];
    let mut entries: Vec<_> = packages.iter().zip(ecosystems).map(|(package, ecosystem)| {
        let more = json!({ "severity": [{ "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }], "aliases": ["CVE-1"] });
        entry("A-1", ecosystem, &package.name, "999", more)
    }).collect();
    entries.push(entry(
        "A-2",
        "PyPI",
        "django",
        "4.2rc1.dev3",
        json!({ "withdrawn": "2026-01-01T00:00:00Z" }),
    ));
    let words = [
        "\"events\":",
        "\"introduced\":",
        "\"last_affected\":",
        "\"limit\":",
        "\"versions\":",
        "\"0\"",
        "GIT",
        "SEMVER",
        "CVSS:4.0/",
    ];
    let more =
        ["1!", ".dev", ".post", "rc", "-", "+", "~", "SNAPSHOT", "alpha", ".", "null", "[", "PK\u{3}\u{4}"];
    let mut target = Target::new(env!("CARGO_MANIFEST_DIR"), "vulnerabilities").words(&words).words(&more);
    for entry in &entries {
        target = target.seed(entry.to_string());
    }
    let all = serde_json::to_vec(&entries).unwrap();
    target
        .seed(crate::inventory::archive::tests::zip(&[("a.json", entries[0].to_string().as_bytes(), true)]))
        .seed(all)
        .run(|bytes| {
            let mut said = String::new();
            for path in [&document, &archive] {
                std::fs::write(path, bytes).unwrap();
                let found = vulnerabilities(&inventory, path);
                said += &match found {
                    Ok(found) => format!(
                        "{:?}",
                        found
                            .findings
                            .iter()
                            .map(|finding| (finding.counted(), &finding.id))
                            .collect::<Vec<_>>()
                    ),
                    Err(error) => format!("{error:?}"),
                };
            }
            said
        });
}
