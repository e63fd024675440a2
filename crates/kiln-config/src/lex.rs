//! Tokens of HCL text: for `fmt`, for exact messages about what is not closed, and for finding where blocks end.
//!
//! A string or heredoc is one token, with all that is interpolated into it.

use std::ops::Range;

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Newline,
    /// `#` or `//` to the end of the line, without the line ending.
    LineComment,
    BlockComment,
    Ident,
    Number,
    /// A quoted string.
    Quoted,
    Heredoc,
    Open,
    Close,
    Comma,
    Dot,
    Equal,
    /// Any other operator or mark.
    Mark,
    /// A character that begins no token.
    Unknown,
}

/// A token: what it is and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) range: Range<usize>,
}

/// Something that is opened and never closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LexError {
    /// Where it opens.
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: &'static str,
    /// Where it went wrong.
    pub(crate) also: Option<(Range<usize>, &'static str)>,
}

/// Returns the tokens. An unclosed string or comment ends at its line, so that the rest can still be looked at.
pub(crate) fn lex(text: &str) -> (Vec<Token>, Vec<LexError>) {
    let mut lexer = Lexer { text, bytes: text.as_bytes(), at: 0, tokens: Vec::new(), errors: Vec::new() };
    lexer.run();
    lexer.brackets();
    (lexer.tokens, lexer.errors)
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    tokens: Vec<Token>,
    errors: Vec<LexError>,
}

/// What the lexer is inside of, within a string.
enum Inside {
    /// A quoted string that opened here.
    Quote(usize),
    /// `${` or `%{` that opened here, and the braces within.
    Interpolation(usize, usize),
    /// A heredoc's text, with its delimiter.
    Heredoc(usize, String),
}

impl Lexer<'_> {
    fn run(&mut self) {
        while self.at < self.bytes.len() {
            let start = self.at;
            let kind = match self.bytes[start] {
                b' ' | b'\t' => {
                    self.at += 1;
                    continue;
                }
                b'\r' if self.peek(1) == Some(b'\n') => self.advance(2, TokenKind::Newline),
                // Without its line feed at the end of the text, where the parser takes it for a line's end, too.
                b'\r' if self.peek(1).is_none() => self.advance(1, TokenKind::Newline),
                b'\n' => self.advance(1, TokenKind::Newline),
                b'#' => self.line_comment(),
                b'/' if self.peek(1) == Some(b'/') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                b'"' => self.template(Inside::Quote(start), 1, TokenKind::Quoted),
                b'<' if self.peek(1) == Some(b'<') => self.heredoc(),
                b'0'..=b'9' => self.number(),
                b'{' | b'[' | b'(' => self.advance(1, TokenKind::Open),
                b'}' | b']' | b')' => self.advance(1, TokenKind::Close),
                b',' => self.advance(1, TokenKind::Comma),
                b'.' if self.text[start..].starts_with("...") => self.advance(3, TokenKind::Mark),
                b'.' => self.advance(1, TokenKind::Dot),
                b'=' if matches!(self.peek(1), Some(b'=' | b'>')) => self.advance(2, TokenKind::Mark),
                b'=' => self.advance(1, TokenKind::Equal),
                b'!' | b'<' | b'>' if self.peek(1) == Some(b'=') => self.advance(2, TokenKind::Mark),
                b'&' if self.peek(1) == Some(b'&') => self.advance(2, TokenKind::Mark),
                b'|' if self.peek(1) == Some(b'|') => self.advance(2, TokenKind::Mark),
                b':' if self.peek(1) == Some(b':') => self.advance(2, TokenKind::Mark),
                b'!' | b'<' | b'>' | b'+' | b'-' | b'*' | b'/' | b'%' | b'?' | b':' => {
                    self.advance(1, TokenKind::Mark)
                }
                _ => self.word(),
            };
            self.tokens.push(Token { kind, range: start..self.at });
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn advance(&mut self, bytes: usize, kind: TokenKind) -> TokenKind {
        self.at += bytes;
        kind
    }

    fn line_comment(&mut self) -> TokenKind {
        let rest = &self.text[self.at..];
        let line = rest.split('\n').next().unwrap_or(rest);
        self.at += line.strip_suffix('\r').unwrap_or(line).len();
        TokenKind::LineComment
    }

    fn block_comment(&mut self) -> TokenKind {
        let start = self.at;
        match self.text[start + 2..].find("*/") {
            Some(end) => self.at = start + 2 + end + 2,
            None => {
                self.fail(
                    start..start + 2,
                    "this comment is never closed".into(),
                    "close it with `*/`",
                    None,
                );
                self.at = self.bytes.len();
            }
        }
        TokenKind::BlockComment
    }

    fn number(&mut self) -> TokenKind {
        let digits = |l: &mut Self| {
            while matches!(l.peek(0), Some(b'0'..=b'9')) {
                l.at += 1;
            }
        };
        digits(self);
        if self.peek(0) == Some(b'.') && matches!(self.peek(1), Some(b'0'..=b'9')) {
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.peek(1), Some(b'+' | b'-')));
            if matches!(self.peek(1 + sign), Some(b'0'..=b'9')) {
                self.at += 1 + sign;
                digits(self);
            }
        }
        TokenKind::Number
    }

    fn word(&mut self) -> TokenKind {
        let rest = &self.text[self.at..];
        let first = rest.chars().next().expect("the caller saw a byte");
        if !is_ident_start(first) {
            self.at += first.len_utf8();
            return TokenKind::Unknown;
        }
        self.at += rest.find(|c| !is_ident_continue(c)).unwrap_or(rest.len());
        TokenKind::Ident
    }

    fn heredoc(&mut self) -> TokenKind {
        let start = self.at;
        let mut name = start + 2;
        if self.bytes.get(name) == Some(&b'-') {
            name += 1;
        }
        let rest = &self.text[name..];
        let length = rest.find(|c| !is_ident_continue(c)).unwrap_or(rest.len());
        let after = &rest[length..];
        if length == 0 || !(after.starts_with('\n') || after.starts_with("\r\n")) {
            return self.advance(2, TokenKind::Mark);
        }
        let delimiter = rest[..length].to_owned();
        let newline = after.find('\n').expect("checked above") + 1;
        self.template(Inside::Heredoc(start, delimiter), name + length + newline - start, TokenKind::Heredoc)
    }

    /// Scans a string or heredoc, whose opening takes `skip` bytes, to its end.
    fn template(&mut self, first: Inside, skip: usize, kind: TokenKind) -> TokenKind {
        self.at += skip;
        let mut stack = vec![first];
        while let Some(top) = stack.last_mut() {
            let step = match top {
                Inside::Quote(start) => {
                    let start = *start;
                    self.in_quote(start)
                }
                Inside::Heredoc(start, delimiter) => {
                    let (start, delimiter) = (*start, delimiter.clone());
                    self.in_heredoc(start, &delimiter)
                }
                Inside::Interpolation(start, braces) => {
                    let start = *start;
                    let mut open = *braces;
                    let step = self.in_interpolation(start, &mut open);
                    *braces = open;
                    step
                }
            };
            match step {
                Step::Stay => {}
                Step::Enter(inside) => stack.push(inside),
                Step::Leave => drop(stack.pop()),
                Step::Broken => break,
            }
        }
        kind
    }

    fn in_quote(&mut self, start: usize) -> Step {
        match self.peek(0) {
            None | Some(b'\n') => {
                let here = self.at..self.at;
                self.fail(
                    start..start + 1,
                    "this string is never closed".into(),
                    "close it with `\"`; text of several lines goes into a heredoc (`<<-EOT`)",
                    Some((here, "the line ends here")),
                );
                Step::Broken
            }
            Some(b'\\') => {
                self.at += if self.peek(1).is_some_and(|b| b != b'\n') { 2 } else { 1 };
                self.at = self.text.ceil_char_boundary(self.at);
                Step::Stay
            }
            Some(b'"') => {
                self.at += 1;
                Step::Leave
            }
            Some(b'$' | b'%') => self.maybe_interpolation(),
            Some(_) => self.one_char(),
        }
    }

    fn in_heredoc(&mut self, start: usize, delimiter: &str) -> Step {
        if self.at > 0 && self.bytes[self.at - 1] == b'\n' {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start_matches([' ', '\t']);
            if let Some(after) = trimmed.strip_prefix(delimiter)
                && !after.starts_with(is_ident_continue)
            {
                self.at += rest.len() - after.len();
                return Step::Leave;
            }
        }
        match self.peek(0) {
            None => {
                let message = format!("this heredoc is never closed: no line holds `{delimiter}` alone");
                self.fail(
                    start..start + 2 + delimiter.len(),
                    message,
                    "end it with its delimiter on a line of its own",
                    None,
                );
                Step::Broken
            }
            Some(b'$' | b'%') => self.maybe_interpolation(),
            Some(_) => self.one_char(),
        }
    }

    fn in_interpolation(&mut self, start: usize, braces: &mut usize) -> Step {
        match self.peek(0) {
            None => self.unclosed_interpolation(start),
            Some(b'{') => {
                *braces += 1;
                self.one_char()
            }
            Some(b'}') => {
                self.at += 1;
                match braces.checked_sub(1) {
                    Some(fewer) => {
                        *braces = fewer;
                        Step::Stay
                    }
                    None => Step::Leave,
                }
            }
            Some(b'"') => {
                let quote = self.at;
                // A quote that never closes on its line is the end of the outer string: the brace is what is missing.
                if !self.closes_on_line(quote + 1) {
                    return self.unclosed_interpolation(start);
                }
                self.at += 1;
                Step::Enter(Inside::Quote(quote))
            }
            Some(b'#') => self.skip_comment(),
            Some(b'/') if self.peek(1) == Some(b'/') => self.skip_comment(),
            Some(b'/') if self.peek(1) == Some(b'*') => {
                self.block_comment();
                Step::Stay
            }
            Some(_) => self.one_char(),
        }
    }

    fn skip_comment(&mut self) -> Step {
        self.line_comment();
        Step::Stay
    }

    fn unclosed_interpolation(&mut self, start: usize) -> Step {
        let here = self.at..self.at;
        self.fail(
            start..start + 2,
            "this interpolation is never closed".into(),
            "close it with `}`, or write `$${` for a literal `${`",
            Some((here, "the string ends here")),
        );
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
        Step::Broken
    }

    /// Whether an unescaped quote follows before the line ends. Deliberately shallow: it only improves a message.
    fn closes_on_line(&self, from: usize) -> bool {
        let mut at = from;
        while let Some(byte) = self.bytes.get(at) {
            match byte {
                b'\n' => return false,
                b'"' => return true,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        false
    }

    fn maybe_interpolation(&mut self) -> Step {
        let (sign, start) = (self.bytes[self.at], self.at);
        if self.peek(1) == Some(sign) && self.peek(2) == Some(b'{') {
            self.at += 3;
            return Step::Stay;
        }
        if self.peek(1) == Some(b'{') {
            self.at += 2;
            return Step::Enter(Inside::Interpolation(start, 0));
        }
        self.one_char()
    }

    fn one_char(&mut self) -> Step {
        self.at = self.text.ceil_char_boundary(self.at + 1);
        Step::Stay
    }

    fn fail(
        &mut self,
        range: Range<usize>,
        message: String,
        help: &'static str,
        also: Option<(Range<usize>, &'static str)>,
    ) {
        self.errors.push(LexError { range, message, help, also });
    }

    /// Reports brackets that do not pair.
    fn brackets(&mut self) {
        let mut open: Vec<&Token> = Vec::new();
        let mut found = None;
        for token in &self.tokens {
            match token.kind {
                TokenKind::Open => open.push(token),
                TokenKind::Close => {
                    let close = self.bytes[token.range.start];
                    match open.pop() {
                        Some(opener) if pairs(self.bytes[opener.range.start], close) => {}
                        Some(opener) => {
                            found = Some((
                                opener.range.clone(),
                                format!("`{}` is never closed", &self.text[opener.range.clone()]),
                                Some((token.range.clone(), "this closes something else")),
                            ));
                            break;
                        }
                        None => {
                            let message = format!("`{}` closes nothing", &self.text[token.range.clone()]);
                            found = Some((token.range.clone(), message, None));
                            break;
                        }
                    }
                }
                _ => {}
            }
        }
        if found.is_none()
            && let Some(opener) = open.last()
        {
            let message = format!("`{}` is never closed", &self.text[opener.range.clone()]);
            found = Some((opener.range.clone(), message, None));
        }
        if let Some((range, message, also)) = found
            && self.errors.is_empty()
        {
            self.fail(range, message, "every `{`, `[` and `(` needs its counterpart", also);
        }
    }
}

enum Step {
    Stay,
    Enter(Inside),
    Leave,
    Broken,
}

fn pairs(open: u8, close: u8) -> bool {
    matches!((open, close), (b'{', b'}') | (b'[', b']') | (b'(', b')'))
}

fn is_ident_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii() && hcl_edit::Ident::try_new(c.to_string()).is_ok()
}

fn is_ident_continue(c: char) -> bool {
    // An ASCII test first: asking the crate allocates.
    c.is_ascii_alphanumeric()
        || c == '_'
        || c == '-'
        || (!c.is_ascii() && hcl_edit::Ident::try_new(format!("a{c}")).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(TokenKind, &str)> {
        let (tokens, errors) = lex(text);
        assert_eq!(errors, vec![]);
        tokens.into_iter().map(|t| (t.kind, &text[t.range])).collect()
    }

    #[test]
    fn a_string_with_nested_strings_is_one_token() {
        let text = r#"a = "x ${f("}", { b = "${c}" })} $${d} \" y" # c"#;
        let found = kinds(text);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!(found[2].0, TokenKind::Quoted);
        assert_eq!(found[3], (TokenKind::LineComment, "# c"));
    }

    #[test]
    fn a_heredoc_ends_at_its_delimiter_alone_on_a_line() {
        let text = "a = <<-EOT\n  x EOT\n  EOTX\n  ${b}\n  EOT\nc = 1\n";
        let found = kinds(text);
        assert_eq!(found[2], (TokenKind::Heredoc, "<<-EOT\n  x EOT\n  EOTX\n  ${b}\n  EOT"));
    }

    #[test]
    fn what_is_never_closed_is_named_where_it_opens() {
        for (text, at, message) in [
            ("a = \"x\nb = 1\n", 4, "this string is never closed"),
            ("a = \"x ${b\"\n", 7, "this interpolation is never closed"),
            ("a = <<EOT\nx\n", 4, "this heredoc is never closed: no line holds `EOT` alone"),
            ("a {\n  b = [1, 2\n}\n", 10, "`[` is never closed"),
            ("a {\n", 2, "`{` is never closed"),
            ("}\n", 0, "`}` closes nothing"),
            ("/* x", 0, "this comment is never closed"),
        ] {
            let (_, errors) = lex(text);
            assert_eq!(errors.len(), 1, "{text}: {errors:?}");
            assert_eq!((errors[0].range.start, errors[0].message.as_str()), (at, message), "{text}");
        }
    }
}
