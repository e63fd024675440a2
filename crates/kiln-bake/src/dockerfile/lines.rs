//! A Dockerfile's text as logical lines: directives, comments, continuations and heredocs are dealt with here.
//!
//! Source: BuildKit's `frontend/dockerfile/parser`; where its documentation and its parser differ, the parser is followed.

use super::heredoc::{self, Heredoc, Opener};
use super::problem::{Problem, Span};

/// A Dockerfile is written by hand; the largest generated ones have some ten thousand lines.
const LINES_MAX: usize = 100_000;

/// One instruction with its continuations joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Where parts of `text` come from: offset in `text`, offset in the file.
    parts: Vec<(usize, usize)>,
    pub(super) heredocs: Vec<Heredoc>,
}

impl Line {
    /// Returns the place in the file of a part of the line.
    pub(super) fn span(&self, start: usize, end: usize) -> Span {
        let at = |offset: usize| {
            let part = self.parts.iter().rev().find(|(from, _)| *from <= offset);
            let (from, source) = part.copied().unwrap_or_default();
            source + (offset - from)
        };
        // The end is that of the last byte: what follows it may stand on another line.
        Span { start: at(start), end: if end > start { at(end - 1) + 1 } else { at(start) } }
    }

    pub(super) fn whole(&self) -> Span {
        let trimmed = self.text.trim_end().len();
        self.span(0, trimmed)
    }

    /// A line of its own, as of an `ONBUILD` that an image brings.
    pub(super) fn of_text(text: &str) -> Self {
        Self { text: text.to_owned(), parts: vec![(0, 0)], heredocs: Vec::new() }
    }
}

/// The text of a file, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lines {
    pub(super) escape: char,
    pub(super) lines: Vec<Line>,
}

/// A physical line: where it begins, and its text without the line's end.
#[derive(Clone, Copy)]
struct Physical<'a> {
    start: usize,
    text: &'a str,
}

struct Reader<'a> {
    physical: Vec<Physical<'a>>,
    next: usize,
    escape: char,
}

/// Takes a text apart; the first problem ends it, since what follows would be read wrongly.
pub(super) fn read(text: &str) -> Result<Lines, Problem> {
    let mut physical = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let plain = line.strip_suffix('\n').unwrap_or(line);
        let plain = plain.strip_suffix('\r').unwrap_or(plain);
        physical.push(Physical { start, text: plain });
        start += line.len();
        if physical.len() > LINES_MAX {
            let span = Span { start, end: start };
            return Err(Problem::new(span, format!("a Dockerfile has at most {LINES_MAX} lines")));
        }
    }
    if let Some(first) = physical.first_mut()
        && let Some(rest) = first.text.strip_prefix('\u{feff}')
    {
        *first = Physical { start: '\u{feff}'.len_utf8(), text: rest };
    }
    let escape = directives(&physical)?;
    let mut reader = Reader { physical, next: 0, escape };
    let mut lines = Vec::new();
    while let Some(line) = reader.logical()? {
        lines.push(line);
    }
    Ok(Lines { escape, lines })
}

/// Reads the parser directives, which stand before anything else, and returns the escape character.
fn directives(physical: &[Physical<'_>]) -> Result<char, Problem> {
    let mut escape = '\\';
    let mut seen: Vec<String> = Vec::new();
    for line in physical {
        let Some((name, value, at)) = directive(line.text) else { break };
        let name = name.to_ascii_lowercase();
        let start = line.start + at;
        let span = Span { start, end: start + value.len() };
        // Any other word is a comment.
        if !matches!(name.as_str(), "syntax" | "escape" | "check") {
            continue;
        }
        if seen.contains(&name) {
            return Err(Problem::new(span, format!("the directive `{name}` is there twice")));
        }
        match name.as_str() {
            "escape" => {
                escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    _ => return Err(Problem::new(span, "the escape character is `\\` or a backquote")),
                }
            }
            "syntax" if !is_dockerfile(value) => {
                let message = format!("`{value}` is another language than Dockerfiles");
                let help = "Kiln reads Dockerfiles by itself and runs no front end from a registry";
                return Err(Problem::new(span, message).help(help));
            }
            _ => {}
        }
        seen.push(name);
    }
    Ok(escape)
}

/// Whether a front end's image is one of those for Dockerfiles.
fn is_dockerfile(image: &str) -> bool {
    let name = image.split(['@', ':']).next().unwrap_or(image);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    matches!(name, "docker/dockerfile" | "docker/dockerfile-upstream")
}

/// Returns the name, the value and where the value begins.
fn directive(text: &str) -> Option<(&str, &str, usize)> {
    let rest = text.trim_start().strip_prefix('#')?;
    let (name, value) = rest.split_once('=')?;
    let name = name.trim();
    let named = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let trimmed = value.trim();
    let at = text.len() - value.len() + (value.len() - value.trim_start().len());
    (named && !trimmed.is_empty()).then_some((name, trimmed, at))
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<Physical<'a>> {
        let line = self.physical.get(self.next).copied();
        self.next += 1;
        line
    }

    /// Reads the next instruction with all of its lines.
    fn logical(&mut self) -> Result<Option<Line>, Problem> {
        while let Some(first) = self.take() {
            let lead = first.text.len() - first.text.trim_start().len();
            let first = Physical { start: first.start + lead, text: &first.text[lead..] };
            if first.text.is_empty() || first.text.starts_with('#') {
                continue;
            }
            let mut line = Line { text: String::new(), parts: Vec::new(), heredocs: Vec::new() };
            let mut goes_on = self.append(&mut line, first);
            while goes_on {
                let Some(next) = self.take() else { break };
                let trimmed = next.text.trim_start();
                // Comments and empty lines within an instruction are as if they were not there.
                if trimmed.is_empty() || trimmed.starts_with('#') {
                    continue;
                }
                goes_on = self.append(&mut line, next);
            }
            if line.text.trim().is_empty() {
                continue;
            }
            self.heredocs(&mut line)?;
            return Ok(Some(line));
        }
        Ok(None)
    }

    /// Adds a physical line without its continuation mark; whether there was one.
    fn append(&self, line: &mut Line, next: Physical<'_>) -> bool {
        let trimmed = next.text.trim_end_matches([' ', '\t']);
        let (text, goes_on) = match trimmed.strip_suffix(self.escape) {
            Some(rest) if !rest.ends_with(self.escape) => (rest, true),
            _ => (next.text, false),
        };
        line.parts.push((line.text.len(), next.start));
        line.text.push_str(text);
        goes_on
    }

    fn heredocs(&mut self, line: &mut Line) -> Result<(), Problem> {
        if !line.text.contains("<<") || !heredoc::may_have(&line.text) {
            return Ok(());
        }
        for opener in heredoc::openers(&line.text) {
            let mut content = String::new();
            let mut closed = false;
            while let Some(next) = self.take() {
                let mark = if opener.chomp { next.text.trim_start_matches('\t') } else { next.text };
                if mark == opener.name {
                    closed = true;
                    break;
                }
                content.push_str(next.text);
                content.push('\n');
            }
            if !closed {
                let message = format!("the heredoc is not closed by a line `{}`", opener.name);
                return Err(Problem::new(line.whole(), message));
            }
            let Opener { name, expand, chomp, .. } = opener;
            line.heredocs.push(Heredoc { name, expand, chomp, content });
        }
        Ok(())
    }
}
