//! Dates, from the lock's time: the same lock gives the same stack.

use kiln_model::calendar::{civil_from_days, days_from_civil};

use super::{Args, Failure, Function, Run, row};
use crate::units::parse_signed_millis;
use crate::value::Value;

pub(super) static ROWS: &[Function] = &[
    row(
        "formatdate",
        "formatdate(spec, timestamp)",
        (2, 2),
        Run::Whole(formatdate),
        "A date in another form: `YYYY`, `YY`, `MMMM`, `MMM`, `MM`, `M`, `DD`, `D`, `EEEE`, `EEE`, `hh`, `h`, `HH`, `H`, `AA`, `aa`, `mm`, `m`, `ss`, `s`, `ZZZZZ`, `ZZZZ`, `ZZZ`, `Z`; text in single quotes.",
        "formatdate(\"DD MMM YYYY\", \"2026-01-02T03:04:05Z\")",
        "\"02 Jan 2026\"",
    ),
    row(
        "plantimestamp",
        "plantimestamp()",
        (0, 0),
        Run::Whole(timestamp),
        "The same as `timestamp`.",
        "plantimestamp()",
        "\"2026-01-02T03:04:05Z\"",
    ),
    row(
        "timeadd",
        "timeadd(timestamp, duration)",
        (2, 2),
        Run::Whole(timeadd),
        "A later moment, or an earlier one with a negative duration.",
        "timeadd(\"2026-01-01T00:00:00Z\", \"1h30m\")",
        "\"2026-01-01T01:30:00Z\"",
    ),
    row(
        "timestamp",
        "timestamp()",
        (0, 0),
        Run::Whole(timestamp),
        "When the lock was made, never the present: else each run would replace every instance.",
        "timestamp()",
        "\"2026-01-02T03:04:05Z\"",
    ),
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const DAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

/// A moment as a calendar shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Moment {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    /// The offset from UTC in minutes.
    offset: i32,
    /// 0 is a Thursday, as the epoch was.
    weekday: usize,
}

impl Moment {
    fn from_seconds(seconds: i64, offset: i32) -> Self {
        let local = seconds + i64::from(offset) * 60;
        let (days, rest) = (local.div_euclid(86_400), local.rem_euclid(86_400) as u32);
        let (year, month, day) = civil_from_days(days);
        Self {
            year,
            month,
            day,
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            offset,
            weekday: days.rem_euclid(7) as usize,
        }
    }

    fn zone(&self, separator: &str) -> String {
        let sign = if self.offset < 0 { '-' } else { '+' };
        let minutes = self.offset.unsigned_abs();
        format!("{sign}{:02}{separator}{:02}", minutes / 60, minutes % 60)
    }

    fn zone_or_z(&self) -> String {
        if self.offset == 0 { "Z".into() } else { self.zone(":") }
    }

    /// RFC 3339.
    fn text(&self) -> String {
        let Self { year, month, day, hour, minute, second, .. } = self;
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{}", self.zone_or_z())
    }
}

/// Reads RFC 3339: seconds since the epoch.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    parse(text).map(|(seconds, _)| seconds)
}

/// Reads RFC 3339: seconds since the epoch and the offset. Fractions of a second are dropped.
fn parse(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    if !text.is_ascii() || bytes.len() < 20 {
        return None;
    }
    let number = |from: usize, to: usize| {
        let part = &text[from..to];
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if marks.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (i64::from(number(0, 4)?), number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |b: &u8| b.is_ascii_digit().then(|| i32::from(*b - b'0'));
            let minutes = (digit(h1)? * 10 + digit(h2)?) * 60 + digit(m1)? * 10 + digit(m2)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    let real = (1..=12).contains(&month) && civil_from_days(days) == (year, month, day);
    if !real || hour > 23 || minute > 59 || second > 59 || offset.abs() > 23 * 60 + 59 {
        return None;
    }
    let local = days * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
    Some((local - i64::from(offset) * 60, offset))
}

fn moment(args: &Args<'_>, i: usize) -> Result<(i64, i32), Failure> {
    let text = args.str(i)?;
    match parse(&text) {
        Some(found) => Ok(found),
        None => args.bad(i, format!("\"{text}\" is no timestamp like 2026-01-02T03:04:05Z")),
    }
}

fn timestamp(args: &Args<'_>) -> Result<Value, Failure> {
    let seconds = i64::try_from(args.eval.lock_time.0 / 1000).unwrap_or(0);
    if seconds > 253_402_300_799 {
        return Err("the lock's time is after the year 9999".into());
    }
    Ok(Value::string(Moment::from_seconds(seconds, 0).text()))
}

fn timeadd(args: &Args<'_>) -> Result<Value, Failure> {
    let (seconds, offset) = moment(args, 0)?;
    let span = parse_signed_millis(&args.str(1)?).map_err(|e| Failure::Argument(1, e))?;
    let later = seconds + span.div_euclid(1000);
    if !(-62_135_596_800..=253_402_300_799).contains(&later) {
        return args.bad(1, "the moment is outside of the years 1 to 9999");
    }
    Ok(Value::string(Moment::from_seconds(later, offset).text()))
}

fn formatdate(args: &Args<'_>) -> Result<Value, Failure> {
    let spec = args.str(0)?;
    let (seconds, offset) = moment(args, 1)?;
    let moment = Moment::from_seconds(seconds, offset);
    let mut out = String::new();
    let mut rest = &*spec;
    while let Some(c) = rest.chars().next() {
        if c == '\'' {
            let Some(end) = quoted(&rest[1..], &mut out) else {
                return args.bad(0, "a quote is never closed");
            };
            rest = &rest[1 + end..];
            continue;
        }
        let run = rest.find(|d| d != c).unwrap_or(rest.len());
        let (part, after) = rest.split_at(run);
        rest = after;
        match field(part, &moment) {
            Some(text) => out.push_str(&text),
            None if c.is_ascii_alphabetic() => {
                return args.bad(0, format!("`{part}` is no part of a date; text goes into single quotes"));
            }
            None => out.push_str(part),
        }
    }
    args.text(out)
}

/// Reads a quoted text; two quotes are one. Returns where it ends.
fn quoted(text: &str, out: &mut String) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.peek().is_some_and(|(_, next)| *next == '\'') => {
                chars.next();
                out.push('\'');
            }
            '\'' => return Some(at + 1),
            c => out.push(c),
        }
    }
    None
}

fn field(part: &str, m: &Moment) -> Option<String> {
    let half = if m.hour.is_multiple_of(12) { 12 } else { m.hour % 12 };
    let month = MONTHS.get(m.month as usize - 1)?;
    let day = DAYS.get(m.weekday)?;
    Some(match part {
        "YYYY" => format!("{:04}", m.year),
        "YY" => format!("{:02}", m.year % 100),
        "MMMM" => (*month).to_owned(),
        "MMM" => month[..3].to_owned(),
        "MM" => format!("{:02}", m.month),
        "M" => m.month.to_string(),
        "DD" => format!("{:02}", m.day),
        "D" => m.day.to_string(),
        "EEEE" => (*day).to_owned(),
        "EEE" => day[..3].to_owned(),
        "hh" => format!("{:02}", m.hour),
        "h" => m.hour.to_string(),
        "HH" => format!("{half:02}"),
        "H" => half.to_string(),
        "AA" => if m.hour < 12 { "AM" } else { "PM" }.to_owned(),
        "aa" => if m.hour < 12 { "am" } else { "pm" }.to_owned(),
        "mm" => format!("{:02}", m.minute),
        "m" => m.minute.to_string(),
        "ss" => format!("{:02}", m.second),
        "s" => m.second.to_string(),
        "ZZZZZ" => m.zone(":"),
        "ZZZZ" => m.zone(""),
        "ZZZ" if m.offset == 0 => "UTC".to_owned(),
        "ZZZ" => m.zone(""),
        "Z" => m.zone_or_z(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree_over_centuries() {
        for days in (-800_000..800_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(civil_from_days(19_782), (2024, 2, 29));
    }

    #[test]
    fn timestamps_are_read_strictly() {
        assert_eq!(parse("2026-01-02T03:04:05+02:00"), Some((1_767_315_845, 120)));
        for bad in [
            "2026-02-30T00:00:00Z",
            "2026-01-02 03:04:05Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "x",
            "2026-01-02T03:04:05",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
