//! `kiln image scan`

use std::path::Path;

use kiln_bake::{Finding, Inventory, Vulnerabilities, vulnerabilities};
use kiln_model::recipe::Severity;
use kiln_store::Store;
use serde_json::{Value, json};

use super::{find, images, inventory, load};
use crate::cli::context::Context;
use crate::cli::exit::Exit;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::table::Table;

/// How bad a vulnerability must be to count.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum Level {
    /// Whatever is listed
    Negligible,
    /// From low
    Low,
    /// From medium, which what nobody scored counts as
    Medium,
    /// From high
    High,
    /// Critical alone
    Critical,
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Negligible => Self::Negligible,
            Level::Low => Self::Low,
            Level::Medium => Self::Medium,
            Level::High => Self::High,
            Level::Critical => Self::Critical,
        }
    }
}

pub(super) fn run(
    store: &Store,
    which: &str,
    database: &Path,
    level: Level,
    context: &mut Context<'_>,
) -> Outcome {
    // A collection at the same time could remove what is being read.
    let _lease = store
        .leases
        .take("scan")
        .map_err(|error| Failure::external("the store can't be used").caused_by(&error))?;
    let (digest, _) = find(&images(store)?, which)?;
    let image = load(store, digest)?;
    let inventory = inventory(store, &image)?;
    let found = vulnerabilities(&inventory, database).map_err(|error| {
        Failure::external("the vulnerability database can't be used")
            .caused_by(&error)
            .hint("it is a folder of JSON files in the OSV schema, one such file, or a zip archive of them")
    })?;
    let limit = Severity::from(level);
    let counting = found.findings.iter().filter(|finding| finding.counted() >= limit).count();
    for omission in &inventory.omissions {
        context.screen.note(&format!("{} is left out: {}", omission.path, omission.reason));
    }
    for (package, reason) in &found.unchecked {
        context.screen.note(&format!("package {package} is left out: {reason}"));
    }
    if context.screen.json() {
        context.screen.answer(&answer(&inventory, &found, limit));
    } else {
        context.screen.print(&text(&found, limit, counting));
    }
    Ok(if counting == 0 { Exit::Done } else { Exit::Failed })
}

fn text(found: &Vulnerabilities, limit: Severity, counting: usize) -> String {
    let mut text = String::new();
    if !found.findings.is_empty() {
        let mut table = Table::new(&["SEVERITY", "ID", "PACKAGE", "VERSION", "FIXED IN"]);
        for finding in &found.findings {
            let Finding { id, package, version, fixed, .. } = finding;
            let fixed = fixed.as_deref().unwrap_or("-");
            table.row([severity(finding), id, package, version, fixed]);
        }
        text = table.render(0);
    }
    let known = &found.database;
    let of = if known.modified.is_empty() { "without a date" } else { &known.modified };
    let vulnerabilities = match counting {
        1 => "1 vulnerability".to_owned(),
        n => format!("{n} vulnerabilities"),
    };
    text + &format!(
        "{vulnerabilities} of severity {} or more, by a database of {} ({of})\n",
        limit.as_str(),
        if known.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", known.entries) },
    )
}

fn severity(finding: &Finding) -> &'static str {
    finding.severity.map_or("unknown", Severity::as_str)
}

fn answer(inventory: &Inventory, found: &Vulnerabilities, limit: Severity) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "id": finding.id,
            "aliases": finding.aliases,
            "ecosystem": finding.ecosystem.as_str(),
            "package": finding.package,
            "version": finding.version,
            "fixed": finding.fixed,
            "severity": severity(finding),
            "counts": finding.counted() >= limit,
        })
    };
    let left_out =
        inventory.omissions.iter().map(|o| json!({ "what": o.path.to_string(), "reason": o.reason }));
    let unchecked = found.unchecked.iter().map(|(name, reason)| json!({ "what": name, "reason": reason }));
    json!({
        "image": inventory.image.to_string(),
        "database": {
            "digest": found.database.digest.to_string(),
            "modified": found.database.modified,
            "entries": found.database.entries,
        },
        "severity": limit.as_str(),
        "findings": found.findings.iter().map(finding).collect::<Vec<_>>(),
        "left_out": left_out.chain(unchecked).collect::<Vec<_>>(),
    })
}
