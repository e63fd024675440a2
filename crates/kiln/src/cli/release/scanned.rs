//! By which database the images of a revision were scanned before it was sealed.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_model::release::Release;
use kiln_model::{Digest, EnvKey, RevisionNumber};

use crate::api::client::{Client, Next};
use crate::api::wire;
use crate::cli::deploy::scans;
use crate::cli::failure::Failure;

/// The controller reads the log from its disk, some thousand events at a time: what takes longer than this has stopped.
const NEXT_WITHIN: Duration = Duration::from_secs(30);

/// Returns what the last scan of each image before a revision was answered by, as the log says it: later scans of the same image, by newer
/// databases, say nothing of how this revision came to be.
///
/// # Errors
/// The controller can't be asked.
pub(super) fn bases(
    client: &Client,
    target: &EnvKey,
    number: RevisionNumber,
    release: &Release,
) -> Result<BTreeMap<Digest, String>, Failure> {
    let mut found = BTreeMap::new();
    if !release.checks.iter().any(|check| check.test == scans::NAME) {
        return Ok(found);
    }
    let target = target.to_string();
    let mut stream = client.events(0, false)?;
    while let Next::Item(event) = stream.next(NEXT_WITHIN)? {
        if is_seal(&event, &target, number) {
            return Ok(found);
        }
        if let Some((image, basis)) = scan(&event) {
            found.insert(image, basis);
        }
    }
    // A log that does not go as far as the revision: what it says of later may not be of this one.
    Ok(BTreeMap::new())
}

fn is_seal(event: &wire::Event, target: &str, number: RevisionNumber) -> bool {
    event.kind == "environment.revision_sealed"
        && event.env.as_deref() == Some(target)
        && event.data["revision"] == number.0
}

fn scan(event: &wire::Event) -> Option<(Digest, String)> {
    let of_scan = event.kind == "check.inspected" && event.data["test"] == scans::NAME;
    let image = event.data["image"].as_str().filter(|_| of_scan)?.parse().ok()?;
    // Scans of before the log had the date say nothing, and take the place of those before them.
    Some((image, event.data["basis"].as_str().unwrap_or("a database whose date was not recorded").to_owned()))
}
