//! One entry of a database: what it says of which versions of which packages.
//!
//! Source: the Open Source Vulnerability schema 1.7, with its evaluation algorithm.

use std::cmp::Ordering;

use kiln_model::recipe::Severity;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::order::compare;
use super::severity::{of_vector, of_word};
use crate::inventory::Ecosystem;

/// An entry. What is not needed to match it is not read.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) id: String,
    #[serde(default)]
    pub(super) modified: Option<String>,
    #[serde(default)]
    pub(super) withdrawn: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    aliases: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    upstream: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    severity: Vec<Scored>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) affected: Vec<Affected>,
    #[serde(default)]
    database_specific: Value,
}

#[derive(Debug, Deserialize)]
struct Scored {
    #[serde(rename = "type")]
    kind: String,
    score: String,
}

/// What it says of one package.
#[derive(Debug, Deserialize)]
pub(super) struct Affected {
    package: Option<Named>,
    #[serde(default, deserialize_with = "or_default")]
    ranges: Vec<Range>,
    #[serde(default, deserialize_with = "or_default")]
    versions: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    severity: Vec<Scored>,
    #[serde(default)]
    ecosystem_specific: Value,
    #[serde(default)]
    database_specific: Value,
}

#[derive(Debug, Deserialize)]
struct Named {
    ecosystem: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Range {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    introduced: Option<String>,
    fixed: Option<String>,
    last_affected: Option<String>,
}

/// Some databases write `null` for an empty list.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What an entry says of a version.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// The first version that is not vulnerable any more, where one is named.
    pub(super) fixed: Option<String>,
}

impl Entry {
    /// Returns all names of the same vulnerability, its own first. An entry of a distribution about a single vulnerability is
    /// that vulnerability; one about several is a name of its own.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let upstream = if self.upstream.len() == 1 { &self.upstream[..] } else { &[] };
        [&self.id].into_iter().chain(&self.aliases).chain(upstream).map(String::as_str)
    }

    /// Returns how bad it is for a package; none where it does not say so in a way that is understood.
    pub(super) fn severity(&self, affected: &Affected) -> Option<Severity> {
        let of_kind = |wanted: &str| {
            let scored = affected.severity.iter().chain(&self.severity);
            scored.filter(|scored| scored.kind == wanted).filter_map(|s| of_vector(&s.score)).max()
        };
        let word = |value: &Value, key: &str| of_word(value.get(key)?.as_str()?);
        of_kind("CVSS_V3")
            .or_else(|| word(&affected.database_specific, "severity"))
            .or_else(|| word(&self.database_specific, "severity"))
            .or_else(|| of_kind("CVSS_V2"))
            .or_else(|| word(&affected.ecosystem_specific, "urgency"))
    }
}

impl Affected {
    /// Returns the package that it is about; none if it is of an ecosystem that is not known here.
    pub(super) fn package(&self) -> Option<(Ecosystem, Option<&str>, String)> {
        let named = self.package.as_ref()?;
        let (family, release) = match named.ecosystem.split_once(':') {
            Some((family, release)) => (family, Some(release)),
            None => (&named.ecosystem[..], None),
        };
        let ecosystem = match family {
            "Debian" => Ecosystem::Debian,
            "PyPI" => Ecosystem::Python,
            "npm" => Ecosystem::Npm,
            "crates.io" => Ecosystem::Cargo,
            "Go" => Ecosystem::Go,
            "Maven" => Ecosystem::Maven,
            _ => return None,
        };
        Some((ecosystem, release, canonical(ecosystem, &named.name)))
    }

    /// Returns whether a version is affected.
    pub(super) fn matches(&self, ecosystem: Ecosystem, version: &str) -> Option<Match> {
        let is = |other: &String| compare(ecosystem, version, other).is_eq();
        // The order of a range of commits is not known here; its versions are listed beside it.
        let ranges = || self.ranges.iter().filter(|range| range.kind != "GIT");
        let hit = self.versions.iter().any(is) || ranges().any(|range| range.has(ecosystem, version));
        hit.then(|| {
            let fixes =
                ranges().flat_map(|range| range.events.iter().filter_map(|event| event.fixed.as_deref()));
            let later = fixes.filter(|fixed| compare(ecosystem, fixed, version).is_gt());
            Match { fixed: later.min_by(|a, b| compare(ecosystem, a, b)).map(str::to_owned) }
        })
    }
}

impl Range {
    /// Walks the events in the order of their versions, as the schema's algorithm does.
    fn has(&self, ecosystem: Ecosystem, version: &str) -> bool {
        let mut events: Vec<&Event> = self.events.iter().filter(|event| event.version().is_some()).collect();
        let order = |a: &&Event, b: &&Event| match (a.version(), b.version()) {
            (Some("0"), Some("0")) => Ordering::Equal,
            // `0` is before every version, even before `0~~`.
            (Some("0"), _) => Ordering::Less,
            (_, Some("0")) => Ordering::Greater,
            (a, b) => compare(ecosystem, a.unwrap_or_default(), b.unwrap_or_default()),
        };
        events.sort_by(order);
        let mut vulnerable = false;
        for event in events {
            if let Some(introduced) = &event.introduced
                && (introduced == "0" || compare(ecosystem, version, introduced).is_ge())
            {
                vulnerable = true;
            }
            if event.fixed.as_ref().is_some_and(|fixed| compare(ecosystem, version, fixed).is_ge()) {
                vulnerable = false;
            }
            if event.last_affected.as_ref().is_some_and(|last| compare(ecosystem, version, last).is_gt()) {
                vulnerable = false;
            }
        }
        vulnerable
    }
}

impl Event {
    fn version(&self) -> Option<&str> {
        self.introduced.as_ref().or(self.fixed.as_ref()).or(self.last_affected.as_ref()).map(String::as_str)
    }
}

/// Spells a name in the one way that two spellings of it share.
pub(super) fn canonical(ecosystem: Ecosystem, name: &str) -> String {
    if ecosystem != Ecosystem::Python {
        return name.to_owned();
    }
    let mut out = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn affected(ecosystem: &str, ranges: Value, versions: Value) -> Affected {
        let package = json!({ "ecosystem": ecosystem, "name": "p" });
        serde_json::from_value(json!({ "package": package, "ranges": ranges, "versions": versions })).unwrap()
    }

    fn hits(ecosystem: &str, events: Value, versions: &[&str]) -> Vec<bool> {
        let one = affected(ecosystem, json!([{ "type": "ECOSYSTEM", "events": events }]), Value::Null);
        let (kind, ..) = one.package().unwrap();
        versions.iter().map(|version| one.matches(kind, version).is_some()).collect()
    }

    #[test]
    fn a_fixed_version_is_not_affected_and_the_last_affected_is_in_every_ecosystem() {
        for (ecosystem, [before, first, middle, edge, after]) in [
            ("Debian:12", ["1.0~rc1-1", "1.0-1", "1.0-1+b1", "1:0.5-1", "1:0.5-1+deb12u1"]),
            ("PyPI", ["1.0rc1", "1.0", "1.0.post1", "1.10", "1.10.post1"]),
            ("npm", ["1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "1.10.1-alpha"]),
            ("crates.io", ["1.0.0-rc.1", "1.0.0", "1.9.0", "1.10.0", "1.10.1"]),
            ("Go", ["v1.0.0-rc.1", "v1.0.0", "v1.9.0", "v1.10.0", "v1.10.1"]),
            ("Maven", ["1.0-rc1", "1.0", "1.9.RELEASE", "1.10", "1.10-sp1"]),
        ] {
            let versions = [before, first, middle, edge, after];
            let fixed = hits(ecosystem, json!([{ "introduced": first }, { "fixed": edge }]), &versions);
            assert_eq!(fixed, [false, true, true, false, false], "{ecosystem}");
            let last =
                hits(ecosystem, json!([{ "introduced": first }, { "last_affected": edge }]), &versions);
            assert_eq!(last, [false, true, true, true, false], "{ecosystem}");
            let all = hits(ecosystem, json!([{ "introduced": "0" }]), &versions);
            assert_eq!(all, [true; 5], "{ecosystem}");
        }
    }

    #[test]
    fn a_range_may_open_again_and_its_events_may_stand_in_any_order() {
        let events = json!([{ "fixed": "3.1.0" }, { "introduced": "3.0.0" }, { "introduced": "0" }, { "fixed": "2.5.0" }]);
        assert_eq!(hits("npm", events, &["2.4.9", "2.5.0", "3.0.5", "3.1.0"]), [true, false, true, false]);
    }

    #[test]
    fn listed_versions_count_commits_do_not_and_the_nearest_fix_is_named() {
        let git = json!([{ "type": "GIT", "events": [{ "introduced": "0" }] }]);
        let listed = affected("PyPI", git, json!(["1.0", "1.1"]));
        assert!(listed.matches(Ecosystem::Python, "1.0.0").is_some());
        assert!(listed.matches(Ecosystem::Python, "1.2").is_none());
        let ranges = json!([{ "type": "SEMVER", "events": [{ "introduced": "0" }, { "fixed": "1.5.0" }] },
            { "type": "SEMVER", "events": [{ "introduced": "2.0.0" }, { "fixed": "2.3.0" }] }]);
        let two = affected("npm", ranges, json!([]));
        let fixed = |version| two.matches(Ecosystem::Npm, version).map(|found| found.fixed.unwrap());
        assert_eq!(fixed("1.0.0").as_deref(), Some("1.5.0"));
        assert_eq!(fixed("2.0.0").as_deref(), Some("2.3.0"));
        assert_eq!(fixed("1.5.0"), None);
    }

    #[test]
    fn names_of_python_have_one_spelling() {
        assert_eq!(canonical(Ecosystem::Python, "Flask__Login.X"), "flask-login-x");
        assert_eq!(canonical(Ecosystem::Go, "github.com/A/b_c"), "github.com/A/b_c");
    }

    #[test]
    fn the_score_counts_before_the_words() {
        let entry = json!({ "id": "GHSA-1", "aliases": null, "severity": [{ "type": "CVSS_V4", "score": "CVSS:4.0/AV:N" },
            { "type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H" }],
            "database_specific": { "severity": "LOW" }, "affected": [{ "ecosystem_specific": { "urgency": "high" } }] });
        let mut entry: Entry = serde_json::from_value(entry).unwrap();
        assert_eq!(entry.severity(&entry.affected[0]), Some(Severity::Critical));
        entry.severity.clear();
        assert_eq!(entry.severity(&entry.affected[0]), Some(Severity::Low));
        entry.database_specific = Value::Null;
        assert_eq!(entry.severity(&entry.affected[0]), Some(Severity::High));
    }
}
