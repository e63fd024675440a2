//! Dates as text, without a time zone database: everything is UTC.

use kiln_model::calendar::{civil_from_days, days_from_civil};

/// Seconds in a day.
pub(crate) const DAY_SECS: u64 = 86_400;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads an archive's date, such as `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 2822), as seconds since the epoch.
pub(crate) fn parse_rfc2822(text: &str) -> Option<u64> {
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = text.split_whitespace();
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let time = words.next()?;
    if !matches!(words.next(), Some("UTC" | "GMT" | "+0000") | None) {
        return None;
    }
    seconds(year, month, day, time)
}

/// Reads `2026-07-11T10:16:37Z` as seconds since the epoch.
pub(crate) fn parse_iso(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut parts = date.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() {
        return None;
    }
    seconds(year, month, day, time)
}

/// Prints seconds since the epoch as `2026-07-11T10:16:37Z`.
pub(crate) fn iso(secs: u64) -> String {
    let (year, month, day) = civil_from_days((secs / DAY_SECS) as i64);
    let rest = secs % DAY_SECS;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

fn seconds(year: u64, month: u64, day: u64, time: &str) -> Option<u64> {
    let mut parts = time.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let sane = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && parts.next().is_none();
    let days = || days_from_civil(year as i64, month as u32, day as u32) as u64;
    sane.then(|| days() * DAY_SECS + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_date_reads_as_date_does() {
        assert_eq!(parse_rfc2822("Sat, 11 Jul 2026 10:16:37 UTC"), Some(1_783_764_997));
        assert_eq!(parse_rfc2822("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        for bad in ["", "11 Jul 2026", "Sat, 11 Foo 2026 10:16:37 UTC", "Sat, 11 Jul 2026 10:16:37 CEST"] {
            assert_eq!(parse_rfc2822(bad), None, "{bad}");
        }
    }

    #[test]
    fn iso_dates_read_back_what_they_print() {
        for secs in [0, 951_782_400, 1_783_764_997, 4_102_444_799] {
            assert_eq!(parse_iso(&iso(secs)), Some(secs), "{}", iso(secs));
        }
        assert_eq!(iso(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(parse_iso("2000-02-29"), None);
    }
}
