//! Words with quotes, escapes and variables, as a Dockerfile's instructions have them.
//!
//! Source: BuildKit's `frontend/dockerfile/shell/lex.go`, which is a shell's word expansion without commands and arithmetic.

use super::wildcard::Wildcard;

/// Linux takes no longer string as an argument or a variable (`MAX_ARG_STRLEN`). It also ends what doubles from line to line.
pub(super) const WORD_BYTES_MAX: usize = 128 << 10;

/// `${a:-${b:-…}}` deeper than this was not written by hand, and each level is one of the stack.
const DEPTH_MAX: usize = 64;

/// What an expansion does with quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They are dropped, and protect what is in them.
    Drop,
    /// They are characters like others, as in the content of a heredoc.
    Plain,
}

/// Where variables are looked up; none where one is not set.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces variables in a word, and drops its quotes and escapes.
pub(super) fn expand(text: &str, escape: char, quotes: Quotes, vars: Lookup<'_>) -> Result<String, String> {
    let mut lexer = Lexer::new(text, escape, quotes, vars);
    let out = lexer.until(None, false)?;
    Ok(out.text)
}

/// Replaces variables in a word and splits what comes of it where white space is not quoted.
pub(super) fn expand_words(text: &str, escape: char, vars: Lookup<'_>) -> Result<Vec<String>, String> {
    let mut lexer = Lexer::new(text, escape, Quotes::Drop, vars);
    let mut out = lexer.until(None, false)?;
    out.end_word();
    Ok(out.words)
}

struct Lexer<'a> {
    chars: Vec<char>,
    at: usize,
    escape: char,
    quotes: Quotes,
    vars: Lookup<'a>,
    depth: usize,
}

/// What was read, as one text and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
    /// Whether there is a word although it may be empty.
    quoted: bool,
}

impl Output {
    /// Adds what may not be split.
    fn raw(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    /// Adds what is split at white space.
    fn split(&mut self, text: &str) {
        self.text.push_str(text);
        for c in text.chars() {
            if c.is_whitespace() {
                self.end_word();
            } else {
                self.word.push(c);
            }
        }
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() || self.quoted {
            self.words.push(std::mem::take(&mut self.word));
        }
        self.quoted = false;
    }
}

impl<'a> Lexer<'a> {
    fn new(text: &str, escape: char, quotes: Quotes, vars: Lookup<'a>) -> Self {
        Self { chars: text.chars().collect(), at: 0, escape, quotes, vars, depth: 0 }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += 1;
        c
    }

    /// Reads to the end, or to `stop`, which is taken. `raw_escapes` keeps escapes for a pattern to read.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<Output, String> {
        let mut out = Output::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.at += 1;
                return Ok(out);
            }
            match c {
                '\'' if self.quotes == Quotes::Drop => {
                    let text = self.single()?;
                    out.raw(&text);
                    out.quoted = true;
                }
                '"' if self.quotes == Quotes::Drop => {
                    let text = self.double()?;
                    out.raw(&text);
                    out.quoted = true;
                }
                '$' => {
                    let text = self.dollar()?;
                    out.split(&text);
                }
                c if c == self.escape => {
                    self.at += 1;
                    let mut text = String::new();
                    text.extend(raw_escapes.then_some(c));
                    text.extend(self.take());
                    out.raw(&text);
                }
                c => {
                    self.at += 1;
                    out.split(c.encode_utf8(&mut [0; 4]));
                }
            }
            if out.text.len() > WORD_BYTES_MAX {
                return Err("it becomes longer than 128 KiB, which no program can be given".into());
            }
        }
        match stop {
            None => Ok(out),
            Some(stop) => Err(format!("a `${{` is not closed: `{stop}` is missing")),
        }
    }

    fn single(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.take() {
                Some('\'') => return Ok(text),
                Some(c) => text.push(c),
                None => return Err("a `'` is not closed".into()),
            }
        }
    }

    fn double(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut text = String::new();
        loop {
            match self.peek() {
                None => return Err("a `\"` is not closed".into()),
                Some('"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(c) => {
                    self.at += 1;
                    match self.peek() {
                        // Only these are escaped within quotes; before others the escape stays.
                        Some(next)
                            if c == self.escape && (matches!(next, '"' | '$') || next == self.escape) =>
                        {
                            self.at += 1;
                            text.push(next);
                        }
                        _ => text.push(c),
                    }
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, String> {
        self.at += 1;
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { (self.vars)(&name).unwrap_or_default() });
        }
        self.at += 1;
        if matches!(self.peek(), None | Some('{' | '}' | ':')) {
            return Err("`${` is not followed by a name".into());
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("its `${{` are nested more than {DEPTH_MAX} deep"));
        }
        let name = self.name();
        let value = self.modified(&name)?;
        self.depth -= 1;
        Ok(value)
    }

    /// Reads what follows the name in `${name…}`.
    fn modified(&mut self, name: &str) -> Result<String, String> {
        let value = (self.vars)(name);
        let unsupported = |what: &str| format!("`${{{name}{what}…}}` is no way to use a variable");
        match self.take() {
            None => Err("a `${` is not closed: `}` is missing".into()),
            Some('}') => Ok(value.unwrap_or_default()),
            Some(':') => {
                let set = value.filter(|value| !value.is_empty());
                match self.take() {
                    Some(c @ ('-' | '+' | '?')) => self.conditional(name, c, set, "empty"),
                    Some(c) => Err(unsupported(&format!(":{c}"))),
                    None => Err("a `${` is not closed: `}` is missing".into()),
                }
            }
            Some(c @ ('-' | '+' | '?')) => self.conditional(name, c, value, "unset"),
            Some(c @ ('#' | '%')) => {
                let pattern = self.until(Some('}'), true)?.text;
                let value = value.unwrap_or_default();
                let (longest, pattern) = match pattern.strip_prefix(c) {
                    Some(rest) => (true, rest),
                    None => (false, pattern.as_str()),
                };
                let pattern = Wildcard::new(pattern)?;
                if c == '#' { pattern.trim_start(&value, longest) } else { pattern.trim_end(&value, longest) }
            }
            Some('/') => {
                let all = self.peek() == Some('/');
                self.at += usize::from(all);
                let pattern = self.until(Some('/'), true)?.text;
                let replacement = self.until(Some('}'), true)?.text;
                Wildcard::new(&pattern)?.replace(&value.unwrap_or_default(), &replacement, all)
            }
            Some(c) => Err(unsupported(&c.to_string())),
        }
    }

    fn conditional(
        &mut self,
        name: &str,
        how: char,
        set: Option<String>,
        lacks: &str,
    ) -> Result<String, String> {
        let word = self.until(Some('}'), false)?.text;
        match (how, set) {
            ('-', set) => Ok(set.unwrap_or(word)),
            ('+', set) => Ok(set.map_or(String::new(), |_| word)),
            (_, Some(value)) => Ok(value),
            (_, None) if word.is_empty() => Err(format!("{name}: it may not be {lacks}")),
            (_, None) => Err(format!("{name}: {word}")),
        }
    }

    /// Reads a name, a number, or one of the shell's special parameters, which are never set here.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    self.at += 1;
                    name.push(c);
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.at += 1;
                name.push(c);
            }
            _ => {
                while let Some(c) = self.peek().filter(|c| c.is_alphanumeric() || *c == '_') {
                    self.at += 1;
                    name.push(c);
                }
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars(name: &str) -> Option<String> {
        match name {
            "x" => Some("value".into()),
            "empty" => Some(String::new()),
            "path" => Some("a/b/c.tar.gz".into()),
            "two" => Some("80 443".into()),
            _ => None,
        }
    }

    fn of(text: &str) -> Result<String, String> {
        expand(text, '\\', Quotes::Drop, &vars)
    }

    #[test]
    fn every_form_of_expansion_has_buildkits_outcome() {
        for (text, expected) in [
            ("$x", "value"),
            ("${x}y", "valuey"),
            ("$xy", ""),
            ("a$", "a$"),
            ("$ x", "$ x"),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x\"", "value"),
            ("\"\\$x\"", "$x"),
            ("\"a\\b\"", "a\\b"),
            ("a\\b", "ab"),
            ("${none}", ""),
            ("${none-w}", "w"),
            ("${none:-w}", "w"),
            ("${empty-w}", ""),
            ("${empty:-w}", "w"),
            ("${x:-w}", "value"),
            ("${x+w}", "w"),
            ("${empty+w}", "w"),
            ("${empty:+w}", ""),
            ("${none+w}", ""),
            ("${x:+w}", "w"),
            ("${x?no}", "value"),
            ("${empty?no}", ""),
            ("${none:-${x}}", "value"),
            ("${none:-\"a b\"}", "a b"),
            ("${path#*/}", "b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "a/b/c.tar"),
            ("${path%%.*}", "a/b/c"),
            ("${path/\\//-}", "a-b/c.tar.gz"),
            ("${path//\\//-}", "a-b-c.tar.gz"),
            ("${path/b*./X}", "a/Xgz"),
            ("${x%zzz}", "value"),
            ("$1a", "a"),
            ("$$", ""),
            ("\u{fc}$x\u{fc}", "\u{fc}"),
        ] {
            assert_eq!(of(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_expansion_is_refused() {
        for text in [
            "'a",
            "\"a",
            "${x",
            "${",
            "${}",
            "${{x}}",
            "${x:}",
            "${x:#a}",
            "${x^^}",
            "${none?}",
            "${none?gone}",
            "${empty:?gone}",
            "${x/a}",
            &"${a:-".repeat(1000),
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        assert_eq!(of("${none?gone}"), Err("none: gone".into()));
    }

    #[test]
    fn the_escape_character_may_be_a_backquote() {
        let of = |text| expand(text, '`', Quotes::Drop, &vars);
        assert_eq!(of("`$x\\$x").as_deref(), Ok("$x\\value"));
    }

    #[test]
    fn words_are_split_where_a_value_has_white_space_and_not_within_quotes() {
        let of = |text| expand_words(text, '\\', &vars).unwrap();
        assert_eq!(of("$two"), ["80", "443"]);
        assert_eq!(of("\"$two\""), ["80 443"]);
        assert_eq!(of("a\\ b ''"), ["a b", ""]);
        assert_eq!(of("$none"), [""; 0]);
    }

    #[test]
    fn quotes_of_a_heredocs_content_stay() {
        let of = |text| expand(text, '\\', Quotes::Plain, &vars).unwrap();
        assert_eq!(of("it's \"$x\" \\$x"), "it's \"value\" $x");
    }

    #[test]
    fn a_value_that_grows_without_end_is_refused() {
        let big = |_: &str| Some("x".repeat(100 << 10));
        assert!(expand("$a$a", '\\', Quotes::Drop, &big).is_err());
    }
}
