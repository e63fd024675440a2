//! Columns of text, and quantities as people read them.

use kiln_model::calendar::civil_from_days;
use kiln_model::{Millis, Timestamp};

/// Rows under a heading, each column as wide as its widest cell.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a heading.
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|cell| (*cell).to_string()).collect()] }
    }

    /// A table without one.
    pub(crate) fn bare() -> Self {
        Self::default()
    }

    /// Adds a row.
    pub(crate) fn row<I, S>(&mut self, cells: I)
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table with two spaces between columns, each line indented.
    pub(crate) fn render(&self, indent: usize) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| visible(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.push_str(&" ".repeat(width - visible(cell) + 2));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// How many columns a cell takes: escape sequences take none.
fn visible(cell: &str) -> usize {
    let mut count = 0;
    let mut chars = cell.chars();
    while let Some(c) = chars.next() {
        if c == '\x1b' {
            chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            count += 1;
        }
    }
    count
}

/// A span in its two largest units: `340ms`, `12s`, `2m 5s`, `3h 10m`, `4d 2h`.
pub(crate) fn span(span: Millis) -> String {
    let secs = span.0 / 1000;
    let pair = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit} {small}{small_unit}"),
    };
    match secs {
        0 => format!("{}ms", span.0),
        1..10 => format!("{}.{}s", secs, span.0 % 1000 / 100),
        10..60 => format!("{secs}s"),
        60..3600 => pair(secs / 60, "m", secs % 60, "s"),
        3600..86_400 => pair(secs / 3600, "h", secs % 3600 / 60, "m"),
        _ => pair(secs / 86_400, "d", secs % 86_400 / 3600, "h"),
    }
}

/// A moment in UTC: `2026-03-02 14:05:09`.
pub(crate) fn moment(at: Timestamp) -> String {
    let secs = at.0 / 1000;
    let (year, month, day) = civil_from_days((secs / 86_400) as i64);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// `1 service`, `2 services`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::screen::Paint;

    #[test]
    fn columns_line_up_whatever_their_colour() {
        let mut table = Table::new(&["A", "BB"]);
        table.row([Paint::COLOUR.red("long"), "x".into()]);
        table.row(["s", "y"]);
        assert_eq!(table.render(1), " A     BB\n \x1b[31;1mlong\x1b[0m  x\n s     y\n");
    }

    #[test]
    fn spans_print_two_units_at_most() {
        for (ms, text) in [
            (0, "0ms"),
            (340, "340ms"),
            (1_540, "1.5s"),
            (12_900, "12s"),
            (125_000, "2m 5s"),
            (3_600_000, "1h"),
            (180_000_000, "2d 2h"),
        ] {
            assert_eq!(span(Millis(ms)), text);
        }
    }

    #[test]
    fn moments_know_leap_years() {
        assert_eq!(moment(Timestamp(0)), "1970-01-01 00:00:00");
        assert_eq!(moment(Timestamp(951_782_400_000)), "2000-02-29 00:00:00");
        assert_eq!(moment(Timestamp(1_772_460_309_000)), "2026-03-02 14:05:09");
    }
}
