//! The scan gate: what is known to be wrong with an image's software, before it can be released.

use std::path::{Path, PathBuf};

use kiln_bake::{Finding, Inventory, vulnerabilities};
use kiln_model::calendar::civil_from_days;
use kiln_model::image::Image;
use kiln_model::recipe::{Scan, ScanIgnore, Severity};
use kiln_model::{Digest, EnvKey};
use kiln_store::Store;
use kiln_store::canonical::digest_of;
use serde_json::json;

use crate::api::client::Client;
use crate::api::wire;
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::cli::table::now;

/// Under which name the verdict is recorded. No test can be named so.
pub(crate) const NAME: &str = ":scan";

/// Findings that a failure names; the rest is counted, and `kiln image scan` lists it.
const NAMED_MAX: usize = 20;

/// A name or a version is some tens of characters; what is longer does not belong in the log.
const WORD_CHARS_MAX: usize = 100;

const MS_PER_DAY: u64 = 86_400_000;

/// Scans an image and has the verdict recorded, once for each database and rules. Returns why it failed, if it did.
///
/// # Errors
/// The image or the database can't be read, or the verdict can't be recorded.
pub(crate) fn run(
    (client, store): (&Client, &Store),
    env: &EnvKey,
    folder: &Path,
    (title, image): (&str, &Image),
    scan: &Scan,
    screen: &mut Screen,
) -> Result<Option<String>, Failure> {
    let inventory = Inventory::of(store, image).map_err(|error| {
        Failure::external(format!("scan {title} can't read its image"))
            .caused_by(&error)
            .hint("`kiln bake` makes it again from the same inputs")
    })?;
    // An absolute path stays what it is.
    let database: PathBuf = folder.join(&scan.database);
    let found = vulnerabilities(&inventory, &database).map_err(|error| {
        Failure::external(format!("scan {title} can't use its vulnerability database"))
            .caused_by(&error)
            .hint("it is a folder of JSON files in the OSV schema, one such file, or a zip archive of them")
    })?;
    let today = today();
    let (valid, expired): (Vec<_>, Vec<_>) =
        scan.ignores.iter().partition(|ignore| ignore.expires.as_str() > today.as_str());
    let limit = scan.severity;
    let counting = |finding: &&Finding| {
        finding.counted() >= limit && !valid.iter().any(|ignore| is_about(ignore, finding))
    };
    let bad: Vec<&Finding> = found.findings.iter().filter(counting).collect();
    let failure = (!bad.is_empty()).then(|| told(&bad, &expired, &found.database.modified));
    let question = question(image, &found.database.digest, limit, &valid);
    let recorded = client.verdict(&image.manifest, NAME, &question)?;
    if recorded.state != "passed" || failure.is_some() {
        let inspected = wire::Inspected {
            image: image.manifest.to_string(),
            test: NAME.to_owned(),
            question: question.to_string(),
            failure: failure.clone(),
            basis: Some(format!("a database of {}", dated(&found.database.modified))),
        };
        client.inspected(env, &inspected)?;
    }
    for ignore in expired {
        screen.note(&format!("scan {title}: the ignore of {} expired on {}", ignore.id, ignore.expires));
    }
    let unchecked = found.unchecked.len() + inventory.omissions.len();
    if unchecked > 0 {
        screen.note(&format!(
            "scan {title}: {unchecked} could not be looked for; `kiln image scan` names them"
        ));
    }
    if failure.is_none() {
        let of = dated(&found.database.modified);
        screen.note(&format!("scan {title} passed, by a database of {of}"));
    }
    Ok(failure)
}

/// The date of a database as it is shown and recorded.
fn dated(modified: &str) -> String {
    if modified.is_empty() { "no date".into() } else { short(modified) }
}

fn is_about(ignore: &ScanIgnore, finding: &Finding) -> bool {
    ignore.id == finding.id || finding.aliases.contains(&ignore.id)
}

/// Why it failed, for people: the worst first.
fn told(bad: &[&Finding], expired: &[&ScanIgnore], modified: &str) -> String {
    let one = |finding: &&Finding| {
        let Finding { id, package, version, fixed, severity, .. } = finding;
        let severity = severity.map_or("unknown", Severity::as_str);
        let [id, package, version] = [id, package, version].map(|word| short(word));
        let fixed =
            fixed.as_ref().map_or("no fix is known".into(), |fixed| format!("fixed in {}", short(fixed)));
        let ignore = expired.iter().find(|ignore| is_about(ignore, finding));
        let ended =
            ignore.map_or(String::new(), |ignore| format!(", its ignore expired on {}", ignore.expires));
        format!("{id} ({severity}) in {package} {version}, {fixed}{ended}")
    };
    let mut lines: Vec<String> = bad.iter().take(NAMED_MAX).map(one).collect();
    if bad.len() > NAMED_MAX {
        lines.push(format!("and {} more", bad.len() - NAMED_MAX));
    }
    let of = if modified.is_empty() { "without a date" } else { modified };
    format!("{}; by the database of {of}", lines.join("; "))
}

/// What a database or an image says, as far as it can be one word of a line.
fn short(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(WORD_CHARS_MAX).collect()
}

/// What is asked, as a digest: of ignores only those that count today, so that one that expires is another question.
fn question(image: &Image, database: &Digest, limit: Severity, valid: &[&ScanIgnore]) -> Digest {
    let ignores: Vec<_> =
        valid.iter().map(|ScanIgnore { id, reason, expires }| json!([id, reason, expires])).collect();
    let text = json!({
        "image": image.manifest.to_string(),
        "database": database.to_string(),
        "severity": limit.as_str(),
        "ignores": ignores,
    });
    digest_of(text.to_string().as_bytes())
}

/// Today in UTC, as `2027-01-31`.
fn today() -> String {
    let (year, month, day) = civil_from_days((now().0 / MS_PER_DAY) as i64);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use kiln_bake::Ecosystem;

    use super::*;

    fn finding(id: &str) -> Finding {
        Finding {
            id: id.into(),
            aliases: vec!["GHSA-1".into()],
            ecosystem: Ecosystem::Npm,
            package: "p".into(),
            version: "1".into(),
            fixed: None,
            severity: None,
        }
    }

    #[test]
    fn a_failure_names_a_page_of_findings_and_no_endless_words() {
        let many: Vec<Finding> = (0..25).map(|n| finding(&format!("CVE-{n}"))).collect();
        let text = told(&many.iter().collect::<Vec<_>>(), &[], "2026");
        assert!(text.starts_with("CVE-0 (unknown) in p 1, no fix is known; CVE-1 "), "{text}");
        assert!(
            text.ends_with("CVE-19 (unknown) in p 1, no fix is known; and 5 more; by the database of 2026"),
            "{text}"
        );
        let long = finding(&"x\n".repeat(10_000));
        assert!(told(&[&long], &[], "").len() < 300);
    }

    #[test]
    fn the_question_is_another_for_another_database_severity_or_ignore() {
        let image = Image {
            manifest: Digest::new([1; 32]),
            tree: Digest::new([2; 32]),
            config: kiln_model::image::ImageConfig::default(),
            size_bytes: 0,
            unproven: Vec::new(),
        };
        let ignore = ScanIgnore { id: "CVE-1".into(), reason: "r".into(), expires: "2027-01-01".into() };
        let database = Digest::new([3; 32]);
        let ask = |database, severity, ignores: &[&ScanIgnore]| question(&image, database, severity, ignores);
        let first = ask(&database, Severity::High, &[&ignore]);
        assert_eq!(first, ask(&database, Severity::High, &[&ignore]));
        for other in [
            ask(&Digest::new([4; 32]), Severity::High, &[&ignore]),
            ask(&database, Severity::Low, &[&ignore]),
            ask(&database, Severity::High, &[]),
        ] {
            assert_ne!(first, other);
        }
        assert!(is_about(&ScanIgnore { id: "GHSA-1".into(), ..ignore }, &finding("CVE-9")));
    }
}
