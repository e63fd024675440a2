//! Diagnostics as text: the source line, underlined.

use std::fmt::Write;
use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{SourceFile, SourceSet};

/// A terminal line: what is longer is cut around the place, so that a minified file doesn't flood the screen.
const LINE_COLUMNS_MAX: usize = 140;

/// Shown for a tab; its real width depends on the terminal, and the underline must not.
const TAB: &str = "    ";

struct Style {
    colour: bool,
}

impl Style {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn severity(&self, severity: Severity, text: &str) -> String {
        self.paint(if severity == Severity::Error { "1;31" } else { "1;33" }, text)
    }

    fn frame(&self, text: &str) -> String {
        self.paint("34", text)
    }
}

pub(crate) fn render(diagnostic: &Diagnostic, sources: &SourceSet, colour: bool) -> String {
    let style = Style { colour };
    let head = format!("{}[{}]", diagnostic.severity.as_str(), diagnostic.code);
    let mut out = format!(
        "{}: {}\n",
        style.severity(diagnostic.severity, &head),
        style.paint("1", &printable(&diagnostic.message))
    );
    let width = diagnostic.labels.iter().map(|l| l.line.to_string().len()).max().unwrap_or(1);
    for (i, label) in diagnostic.labels.iter().enumerate() {
        place(&mut out, diagnostic, sources, &style, (i, label), width);
    }
    if let Some(help) = &diagnostic.help {
        let help = printable(help).replace('\n', &format!("\n{:width$}         ", ""));
        let _ = writeln!(out, "{:width$} {} {help}", "", style.paint("36", "= help:"));
    }
    out
}

fn place(
    out: &mut String,
    diagnostic: &Diagnostic,
    sources: &SourceSet,
    style: &Style,
    (index, label): (usize, &Label),
    width: usize,
) {
    let arrow = if index == 0 { "-->" } else { ":::" };
    let at = format!("{}:{}:{}", printable(&label.file), label.line, label.column);
    let _ = writeln!(out, "{:width$}{} {at}", "", style.frame(arrow));
    let Some(file) = sources.by_path(&label.file) else { return };
    let Some((start, line)) = file.line(label.line) else { return };
    let redacted = &diagnostic.redacted;
    let (shown, before, under) = excerpt(file, start, line, label, redacted);
    let number = style.frame(&format!("{:>width$} |", label.line));
    let bar = style.frame(&format!("{:width$} |", ""));
    let mark = if index == 0 { "^" } else { "-" }.repeat(under);
    let text = printable(&label.text);
    let mark = if text.is_empty() { mark } else { format!("{mark} {text}") };
    let mark = if index == 0 { style.severity(diagnostic.severity, &mark) } else { style.paint("36", &mark) };
    let _ = writeln!(out, "{bar}\n{number} {shown}\n{bar} {:before$}{mark}", "");
}

/// Returns the text to show, the columns before the mark, and the columns under it (at least one).
fn excerpt(
    file: &SourceFile,
    start: usize,
    line: &str,
    label: &Label,
    redacted: &[(String, Range<usize>)],
) -> (String, usize, usize) {
    // `fmt` knows no path, and its caller names the file afterwards.
    let here = |path: &str| path.is_empty() || path == file.path;
    let hidden = |at: usize| redacted.iter().any(|(path, range)| here(path) && range.contains(&at));
    let (mut shown, mut before, mut under) = (String::new(), 0, 0);
    let mut was_hidden = false;
    for (i, c) in line.char_indices() {
        let at = start + i;
        let is_hidden = hidden(at);
        let piece = match c {
            // One mark for the whole: the length of a secret is a hint about it.
            _ if is_hidden && was_hidden => String::new(),
            _ if is_hidden => "(sensitive)".to_owned(),
            '\t' => TAB.to_owned(),
            c => printable_char(c).to_string(),
        };
        was_hidden = is_hidden;
        let columns = width_of(&piece);
        if at < label.span.start {
            before += columns;
        } else if at < label.span.end {
            under += columns;
        }
        shown.push_str(&piece);
    }
    let under = under.max(1);
    if before + under <= LINE_COLUMNS_MAX && width_of(&shown) <= LINE_COLUMNS_MAX {
        return (shown, before, under);
    }
    let skip = before.saturating_sub(LINE_COLUMNS_MAX / 3);
    cut(&shown, skip, before, under)
}

/// Cuts a long line to the part around the mark.
fn cut(shown: &str, skip: usize, before: usize, under: usize) -> (String, usize, usize) {
    let mut column = 0;
    let mut out = String::new();
    let mut skipped = 0;
    for c in shown.chars() {
        let width = c.width().unwrap_or(0);
        if column < skip {
            skipped += width;
        } else if column < skip + LINE_COLUMNS_MAX {
            out.push(c);
        }
        column += width;
    }
    let (lead, lead_columns) = if skip > 0 { ("… ", 2) } else { ("", 0) };
    let tail = if column > skip + LINE_COLUMNS_MAX { " …" } else { "" };
    let before = before - skipped.min(before) + lead_columns;
    let room = (LINE_COLUMNS_MAX + lead_columns).saturating_sub(before).max(1);
    (format!("{lead}{out}{tail}"), before, under.min(room))
}

fn width_of(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// What a file holds must not steer the terminal, nor turn the line around.
fn printable_char(c: char) -> char {
    match c {
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c == '\n' { c } else { printable_char(c) }).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::Problem;
    use crate::source::{FileId, Span};

    fn show(text: &str, range: Range<usize>, hidden: Vec<(String, Range<usize>)>) -> String {
        let set: SourceSet = [("a.hcl", text)].into_iter().collect();
        let span = Span::new(FileId(0), range.start, range.end);
        let problem = Problem::new("x", span, "message").label("here").help("do this");
        problem.resolve(&set, &Arc::new(hidden)).render(&set, false)
    }

    #[test]
    fn the_mark_stands_under_wide_characters() {
        let text = "a = \"漢字\" + b\n";
        let at = text.find("+ b").unwrap();
        let expected = "error[x]: message\n --> a.hcl:1:10\n  |\n1 | a = \"漢字\" + b\n  |            ^ here\n  = help: do this\n";
        assert_eq!(show(text, at..at + 1, vec![]), expected);
    }

    #[test]
    fn a_sensitive_part_of_a_line_is_not_shown() {
        let text = "default = \"hunter2\" + 1\n";
        let shown = show(text, 10..19, vec![("a.hcl".into(), 10..19)]);
        assert!(shown.contains("default = (sensitive) + 1"), "{shown}");
        assert!(!shown.contains("hunter2"));
    }

    #[test]
    fn escape_sequences_of_a_file_do_not_reach_the_terminal() {
        let shown = show("a = \"\x1b[31m\u{202e}\"\n", 0..1, vec![]);
        assert!(!shown.contains('\x1b') && !shown.contains('\u{202e}'), "{shown:?}");
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}HERE{}", "x".repeat(5000), "y".repeat(5000));
        let shown = show(&text, 5000..5004, vec![]);
        assert!(shown.contains("HERE") && shown.len() < 1000, "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        let column = |line: &str, what: &str| line[..line.find(what).unwrap()].chars().count();
        assert_eq!(column(lines[3], "HERE"), column(lines[4], "^^^^"));
    }

    #[test]
    fn a_place_at_the_end_of_the_file_is_shown() {
        assert!(show("a = ", 4..4, vec![]).contains("1 | a = \n  |     ^ here"));
    }
}
