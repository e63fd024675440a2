//! Patterns over paths, as `.gitignore`, `.dockerignore` and a shell have them.
//!
//! `*` and `?` stay within a component, `**` crosses components, `[a-z]` and `[!a-z]` are one character, `{a,b}` are
//! alternatives, `\` takes the next character as it is.

/// As deep as braces may nest; deeper is not written by hand, and each level multiplies.
const BRACES_MAX: usize = 64;

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    /// One per alternative of the braces.
    alternatives: Vec<Vec<Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// `*`
    Star,
    /// `**`, with the slash after it: any number of whole components, even none.
    Deep,
    /// `[...]`
    Set {
        negated: bool,
        ranges: Vec<(u8, u8)>,
    },
}

/// A pattern that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}` is not a glob: {reason}")]
pub struct GlobError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Glob {
    /// Reads a pattern.
    pub(crate) fn new(pattern: &str) -> Result<Self, GlobError> {
        let fail = |reason| GlobError { pattern: pattern.into(), reason };
        let mut texts = vec![pattern.as_bytes().to_vec()];
        let mut alternatives = Vec::new();
        while let Some(text) = texts.pop() {
            match expand(&text).map_err(fail)? {
                None => alternatives.push(tokens(&text).map_err(fail)?),
                Some(expanded) => texts.extend(expanded.into_iter().rev()),
            }
            if texts.len() + alternatives.len() > BRACES_MAX {
                return Err(fail("it has too many alternatives"));
            }
        }
        Ok(Self { alternatives })
    }

    /// Tells whether a whole path matches. Paths have no slash at either end.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        self.alternatives.iter().any(|tokens| matches(tokens, path))
    }
}

/// Replaces the first pair of braces with its alternatives.
fn expand(text: &[u8]) -> Result<Option<Vec<Vec<u8>>>, &'static str> {
    let Some(open) = unescaped(text, |byte| byte == b'{') else { return Ok(None) };
    let mut depth = 0;
    let mut parts = vec![Vec::new()];
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate().skip(open) {
        let plain = !escaped;
        escaped = plain && byte == b'\\';
        match byte {
            b'{' if plain => depth += 1,
            b'}' if plain => depth -= 1,
            _ => {}
        }
        match byte {
            _ if at == open => {}
            b'}' if plain && depth == 0 => {
                let join = |part: Vec<u8>| [&text[..open], &part, &text[at + 1..]].concat();
                return Ok(Some(parts.into_iter().map(join).collect()));
            }
            b',' if plain && depth == 1 => parts.push(Vec::new()),
            _ => parts.last_mut().expect("there is always one part").push(byte),
        }
    }
    Err("a `{` is not closed")
}

fn unescaped(text: &[u8], wanted: impl Fn(u8) -> bool) -> Option<usize> {
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        if !escaped && wanted(byte) {
            return Some(at);
        }
        escaped = !escaped && byte == b'\\';
    }
    None
}

fn tokens(text: &[u8]) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let begins = at == 0 || text[at - 1] == b'/';
        match &text[at..] {
            [b'*', b'*', b'/', ..] if begins => {
                tokens.push(Token::Deep);
                at += 3;
            }
            [b'*', b'*'] if begins => {
                // At the end it means all below: whole components, then any name.
                tokens.extend([Token::Deep, Token::Star]);
                at += 2;
            }
            [b'*', ..] => {
                if tokens.last() != Some(&Token::Star) {
                    tokens.push(Token::Star);
                }
                at += 1;
            }
            [b'?', ..] => {
                tokens.push(Token::Any);
                at += 1;
            }
            [b'[', rest @ ..] => {
                let (set, length) = set(rest)?;
                tokens.push(set);
                at += 1 + length;
            }
            [b'\\', next, ..] => {
                tokens.push(Token::Byte(*next));
                at += 2;
            }
            [b'\\'] => return Err("it ends with a `\\`"),
            [byte, ..] => {
                tokens.push(Token::Byte(*byte));
                at += 1;
            }
            [] => break,
        }
    }
    Ok(tokens)
}

/// Reads a set after its `[`, and returns how long it is with its `]`.
fn set(text: &[u8]) -> Result<(Token, usize), &'static str> {
    let negated = matches!(text.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut at = start;
    let mut ranges = Vec::new();
    loop {
        match &text[at..] {
            [] => return Err("a `[` is not closed"),
            [b']', ..] if at > start => return Ok((Token::Set { negated, ranges }, at + 1)),
            [low, b'-', high, ..] if *high != b']' => {
                ranges.push((*low, *high));
                at += 3;
            }
            [byte, ..] => {
                ranges.push((*byte, *byte));
                at += 1;
            }
        }
    }
}

/// Matches with a table of reachable tokens: linear in both lengths multiplied, whatever the pattern.
fn matches(tokens: &[Token], path: &[u8]) -> bool {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    skip_empty(tokens, &mut reached, true);
    for (at, &byte) in path.iter().enumerate() {
        let mut next = vec![false; tokens.len() + 1];
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| reached[*index]) {
            match token {
                Token::Byte(wanted) => next[index + 1] |= *wanted == byte,
                Token::Any => next[index + 1] |= byte != b'/',
                Token::Star => next[index] |= byte != b'/',
                Token::Deep => next[index] = true,
                Token::Set { negated, ranges } => {
                    let within = ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte));
                    next[index + 1] |= byte != b'/' && within != *negated;
                }
            }
        }
        let begins = path[at] == b'/';
        skip_empty(tokens, &mut next, begins);
        reached = next;
    }
    reached[tokens.len()]
}

/// `*` may match nothing, and `**/` may end wherever a component begins.
fn skip_empty(tokens: &[Token], reached: &mut [bool], begins: bool) {
    for (index, token) in tokens.iter().enumerate() {
        let empty = matches!(token, Token::Star) || (begins && matches!(token, Token::Deep));
        reached[index + 1] |= reached[index] && empty;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_a_shell_would() {
        let cases = [
            ("web/*.py", "web/a.py", true),
            ("web/*.py", "web/sub/a.py", false),
            ("**/*.py", "a.py", true),
            ("**/*.py", "web/sub/a.py", true),
            ("web/**", "web/sub/a.py", true),
            ("web/**", "web", false),
            ("web/**/a", "web/a", true),
            ("web/**/a", "web/x/y/a", true),
            ("web/**/a", "webx/a", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "zx", true),
            ("*.{js,ts}", "a.ts", true),
            ("*.{js,ts}", "a.rs", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("a**b", "axb", true),
            ("a**b", "ax/b", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(Glob::new(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn what_is_not_a_pattern_is_refused() {
        for pattern in ["[a", "{a", "a\\", &"{a,b}".repeat(20)] {
            assert!(Glob::new(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_special_characters_matches_itself_only(path in "[a-z/._-]{1,20}", other in "[a-z/._-]{1,20}") {
            let glob = Glob::new(&path).unwrap();
            prop_assert!(glob.matches(path.as_bytes()));
            prop_assert_eq!(glob.matches(other.as_bytes()), path == other);
        }

        #[test]
        fn any_text_is_read_or_refused(pattern in "\\PC{0,30}", path in "\\PC{0,30}") {
            if let Ok(glob) = Glob::new(&pattern) {
                glob.matches(path.as_bytes());
            }
        }
    }
}
