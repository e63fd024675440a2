//! The order of Maven's versions.
//!
//! Source: Maven's POM reference, "Version Order Specification".

use std::cmp::Ordering;

use super::order::number;

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (tokens(a), tokens(b));
    for index in 0..a.len().max(b.len()) {
        let order = match (a.get(index), b.get(index)) {
            (Some(a), Some(b)) => token(a, b),
            (Some(a), None) => token(a, &padding(a)),
            (None, Some(b)) => token(&padding(b), b),
            (None, None) => Ordering::Equal,
        };
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// Whether a `-`, or a change between digits and letters, stands before it.
    dashed: bool,
    text: String,
}

impl Token {
    fn is_number(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_digit())
    }

    fn is_null(&self) -> bool {
        matches!(&self.text[..], "" | "final" | "ga" | "release")
            || self.text.bytes().all(|byte| byte == b'0')
    }
}

/// What stands opposite a token that the other version lacks: nothing, with the same sign before.
fn padding(token: &Token) -> Token {
    Token { dashed: token.dashed, text: if token.is_number() { "0".into() } else { String::new() } }
}

fn tokens(version: &str) -> Vec<Token> {
    let version = version.trim().to_ascii_lowercase();
    let mut tokens: Vec<Token> = vec![Token { dashed: false, text: String::new() }];
    let mut previous = None;
    for c in version.chars() {
        let last = tokens.last_mut().expect("there is one from the start");
        match c {
            '.' | '-' | '_' => {
                if last.text.is_empty() {
                    last.text.push('0');
                }
                tokens.push(Token { dashed: c != '.', text: String::new() });
            }
            _ => {
                let changes = previous.is_some_and(|p: char| p.is_ascii_digit() != c.is_ascii_digit())
                    && !last.text.is_empty();
                if changes {
                    // `a1` is alpha, before a number alone.
                    if c.is_ascii_digit() {
                        expand(&mut last.text);
                    }
                    tokens.push(Token { dashed: true, text: c.to_string() });
                } else {
                    last.text.push(c);
                }
            }
        }
        previous = Some(c);
    }
    trimmed(tokens)
}

fn expand(text: &mut String) {
    let long = match &text[..] {
        "a" => "alpha",
        "b" => "beta",
        "m" => "milestone",
        _ => return,
    };
    *text = long.to_owned();
}

/// Removes what means nothing before each dash and at the end.
fn trimmed(tokens: Vec<Token>) -> Vec<Token> {
    let mut kept: Vec<Token> = Vec::new();
    for token in tokens {
        if token.dashed {
            drop_nulls(&mut kept);
        }
        kept.push(token);
    }
    drop_nulls(&mut kept);
    kept
}

fn drop_nulls(tokens: &mut Vec<Token>) {
    while tokens.len() > 1 && tokens.last().is_some_and(Token::is_null) {
        tokens.pop();
    }
}

fn token(a: &Token, b: &Token) -> Ordering {
    match (a.is_number(), b.is_number()) {
        // A number behind a dot is after one behind a dash.
        (true, true) => match (a.dashed, b.dashed) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            _ => number(&a.text, &b.text),
        },
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => qualifier(a).cmp(&qualifier(b)),
    }
}

/// The known qualifiers in their order, then all others by their letters.
fn qualifier(token: &Token) -> (u8, &str) {
    match &token.text[..] {
        "alpha" => (0, ""),
        "beta" => (1, ""),
        "milestone" => (2, ""),
        "rc" | "cr" => (3, ""),
        "snapshot" => (4, ""),
        "" | "final" | "ga" | "release" => (5, ""),
        "sp" => (6, ""),
        other => (7, other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::order::tests::ascends;
    use super::*;

    #[test]
    fn versions_order_as_maven_orders_them() {
        ascends(
            compare,
            &[
                "1-alpha-1",
                "1-alpha2",
                "1-beta-2",
                "1-milestone-3",
                "1-rc",
                "1-rc2",
                "1-SNAPSHOT",
                "1",
                "1-sp",
                "1-abc",
                "1-1",
                "1.1",
                "1.2",
                "1.10",
                "2.0",
            ],
        );
        ascends(compare, &["2.9.10", "2.9.10.1", "2.9.10.8", "2.10.0", "2.13.4.2"]);
        ascends(compare, &["31.1-android", "31.1-jre", "32.0.0-android", "32.0.0-jre"]);
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (a, b) in [
            ("1", "1.0.0"),
            ("1.0.0-ga", "1"),
            ("1-a1", "1-alpha-1"),
            ("1.0.RELEASE", "1"),
            ("1-cr2", "1-RC2"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
