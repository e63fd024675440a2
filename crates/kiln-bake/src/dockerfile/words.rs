//! An instruction's words, flags and lists, with their places in the line.

use super::instruction::Word;
use super::lines::Line;
use super::problem::{Problem, Span};

/// What BuildKit's parser takes for white space between words.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\n')
}

/// A part of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rest<'a> {
    pub(super) line: &'a Line,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// `--name` or `--name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    pub(super) name: String,
    pub(super) value: Option<String>,
    /// The whole flag.
    pub(super) span: Span,
    /// Its value alone.
    pub(super) value_span: Span,
}

impl<'a> Rest<'a> {
    /// The whole line without white space around it.
    pub(super) fn of(line: &'a Line) -> Self {
        Self { line, start: 0, end: line.text.len() }.trimmed()
    }

    pub(super) fn text(&self) -> &'a str {
        &self.line.text[self.start..self.end]
    }

    pub(super) fn span(&self) -> Span {
        self.line.span(self.start, self.end)
    }

    pub(super) fn word(&self) -> Word {
        Word { text: self.text().to_owned(), span: self.span() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn trimmed(self) -> Self {
        let text = self.text();
        let start = self.start + (text.len() - text.trim_start().len());
        let end = self.end - (text.len() - text.trim_end().len());
        Self { start, end: end.max(start), ..self }
    }

    fn part(&self, start: usize, end: usize) -> Rest<'a> {
        Rest { line: self.line, start: self.start + start, end: self.start + end }
    }

    /// Takes the first word off; the second part is what follows it.
    pub(super) fn split_first(&self) -> (Rest<'a>, Rest<'a>) {
        let text = self.text();
        let end = text.find(is_blank).unwrap_or(text.len());
        (self.part(0, end), self.part(end, text.len()).trimmed())
    }

    /// Splits at white space, whatever the quotes.
    pub(super) fn blank_words(&self) -> Vec<Word> {
        let mut words = Vec::new();
        let mut rest = *self;
        while !rest.is_empty() {
            let (word, next) = rest.split_first();
            words.push(word.word());
            rest = next;
        }
        words
    }

    /// Splits at white space outside of quotes; quotes and escapes stay in the words.
    pub(super) fn quoted_words(&self, escape: char) -> Vec<Rest<'a>> {
        let text = self.text();
        let mut words = Vec::new();
        let mut begun: Option<usize> = None;
        let mut quote = None;
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match (quote, c) {
                (None, c) if c.is_whitespace() => {
                    words.extend(begun.take().map(|start| self.part(start, at)));
                    continue;
                }
                (None, '\'' | '"') => quote = Some(c),
                (Some(open), c) if c == open => quote = None,
                (quote, c) if c == escape && quote != Some('\'') => drop(chars.next()),
                _ => {}
            }
            begun.get_or_insert(at);
        }
        words.extend(begun.map(|start| self.part(start, text.len())));
        words
    }

    /// Takes the flags at the beginning off.
    pub(super) fn flags(&self) -> (Vec<Flag>, Rest<'a>) {
        let mut flags = Vec::new();
        let mut rest = self.trimmed();
        while rest.text().starts_with("--") {
            let (text, length) = flag_text(rest.text());
            let here = rest.part(0, length);
            rest = rest.part(length, rest.text().len()).trimmed();
            if text == "--" {
                break;
            }
            let (name, value) = match text[2..].split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text[2..].to_owned(), None),
            };
            let at = here.text().find('=').map_or(0, |at| at + 1);
            let value_span = here.part(at, here.text().len()).span();
            flags.push(Flag { name, value, span: here.span(), value_span });
        }
        (flags, rest)
    }

    /// Reads a JSON list of strings; none where it is none, which is then text.
    ///
    /// # Errors
    /// It is a list of something else.
    pub(super) fn json(&self) -> Result<Option<Vec<String>>, Problem> {
        if !self.text().starts_with('[') {
            return Ok(None);
        }
        let Ok(serde_json::Value::Array(items)) = serde_json::from_str(self.text()) else { return Ok(None) };
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
        match texts {
            Some(texts) => Ok(Some(texts)),
            None => Err(Problem::new(self.span(), "a list in the JSON form holds strings only")),
        }
    }
}

/// Reads one flag without its quotes and escapes, and returns how long it is.
fn flag_text(text: &str) -> (String, usize) {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (out, at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (_, '\\') => out.extend(chars.next().map(|(_, next)| next)),
            _ => out.push(c),
        }
    }
    (out, text.len())
}
