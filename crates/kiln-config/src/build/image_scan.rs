//! Which known vulnerabilities keep an image from being released.

use kiln_model::calendar::{civil_from_days, days_from_civil};
use kiln_model::recipe::{Scan, ScanIgnore, Severity};

use crate::diagnostic::Problem;
use crate::files::inside;
use crate::reader::Reader;

pub(super) fn scan(reader: Reader<'_>) -> Option<Scan> {
    let database = reader.parsed("database", "\"./osv\"", |text| {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(text.to_owned());
        }
        inside(text).ok_or_else(|| {
            format!("\"{text}\" leads out of the stack folder; a database elsewhere has an absolute path")
        })
    });
    let severity = reader.parsed("severity", "\"high\"", |text| {
        let known = Severity::ALL.into_iter().find(|severity| severity.as_str() == text);
        known.ok_or_else(|| {
            let names = Severity::ALL.map(|severity| format!("\"{}\"", severity.as_str()));
            format!("there is no severity \"{text}\"; there are {}", names.join(", "))
        })
    });
    let ignores = reader.blocks("ignore").filter_map(|block| {
        let (id, span) = block.labels.first()?;
        let inner = reader.within(block);
        if id.trim().is_empty() {
            inner.report(Problem::new("invalid-name", *span, "an `ignore` names a vulnerability"));
        }
        let reason = inner.parsed("reason", "\"not reachable: the module is not loaded\"", |text| {
            if text.trim().is_empty() {
                Err("a reason says something".to_owned())
            } else {
                Ok(text.to_owned())
            }
        });
        let expires = inner.parsed("expires", "\"2027-01-31\"", day);
        Some(ScanIgnore { id: id.to_string(), reason: reason?, expires: expires? })
    });
    let ignores = ignores.collect();
    Some(Scan { database: database?, severity: severity.unwrap_or(Severity::High), ignores })
}

/// Reads a day that is in the calendar. Texts of this form order as the days do.
fn day(text: &str) -> Result<String, String> {
    let wrong = || format!("\"{text}\" is no day like 2027-01-31");
    let parts: Vec<&str> = text.split('-').collect();
    let is_digits = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let [year, month, day] = parts[..] else { return Err(wrong()) };
    if [year.len(), month.len(), day.len()] != [4, 2, 2] || !parts.iter().all(is_digits) {
        return Err(wrong());
    }
    let number = |part: &str| part.parse::<u32>().map_err(|_| wrong());
    let (year, month, day) = (i64::from(number(year)?), number(month)?, number(day)?);
    let exists =
        (1..=12).contains(&month) && civil_from_days(days_from_civil(year, month, day)) == (year, month, day);
    if exists { Ok(text.to_owned()) } else { Err(wrong()) }
}
