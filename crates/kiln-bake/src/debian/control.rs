//! Debian's control format (deb822): paragraphs of `Name: value` fields.
//!
//! Source: Debian Policy, chapter 5. Reading is borrowed: an index of 60,000 paragraphs is scanned, not copied.

/// One paragraph: the text between two empty lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paragraph<'a>(&'a str);

/// Splits text into paragraphs; lines of white space alone separate them.
pub(crate) fn paragraphs(text: &str) -> impl Iterator<Item = Paragraph<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(['\n', '\r', ' ', '\t']);
        if rest.is_empty() {
            return None;
        }
        let end = paragraph_end(rest);
        let paragraph = Paragraph(&rest[..end]);
        rest = &rest[end..];
        Some(paragraph)
    })
}

fn paragraph_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find('\n') {
        let next = from + at + 1;
        let line = text[next..].split('\n').next().unwrap_or("");
        if line.trim().is_empty() {
            return next;
        }
        from = next;
    }
    text.len()
}

impl<'a> Paragraph<'a> {
    /// Wraps text that holds one paragraph.
    pub(crate) fn new(text: &'a str) -> Self {
        Self(text)
    }

    /// Returns the text as it stands.
    pub(crate) fn text(self) -> &'a str {
        self.0
    }

    /// Returns each field's name and value; a folded value keeps its newlines.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                if rest.is_empty() {
                    return None;
                }
                let end = field_end(rest);
                let field = &rest[..end];
                rest = &rest[end..];
                // A line that is no field (a comment, a stray continuation) belongs to nobody: apt skips it, too.
                if let Some((name, value)) = field.split_once(':')
                    && !name.starts_with(['#', ' ', '\t'])
                {
                    return Some((name, value.trim()));
                }
            }
        })
    }

    /// Returns a field's value; names are compared without case.
    pub(crate) fn get(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn field_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find('\n') {
        let next = from + at + 1;
        if !text[next..].starts_with([' ', '\t']) {
            return next;
        }
        from = next;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_end_at_empty_lines_and_folded_values_stay_whole() {
        let text = "\nPackage: a\nDescription: x\n more\n .\n end\nSize: 3\n\n \nPackage: b\n";
        let all: Vec<_> = paragraphs(text).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("description"), Some("x\n more\n .\n end"));
        assert_eq!(all[0].get("Size"), Some("3"));
        assert_eq!(all[1].get("Package"), Some("b"));
        assert_eq!(all[1].get("Size"), None);
    }

    #[test]
    fn lines_that_are_no_fields_are_skipped() {
        let fields: Vec<_> = Paragraph::new("# note: this\nA: 1\ngarbage\nB:\n").fields().collect();
        assert_eq!(fields, [("A", "1"), ("B", "")]);
    }
}
