//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: `*` and `?`, over characters.

/// More steps than this take longer than a blink; values of variables are short.
const WORK_MAX: usize = 20_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Char(char),
    Any,
    Star,
}

/// A pattern.
#[derive(Debug)]
pub(super) struct Wildcard(Vec<Token>);

impl Wildcard {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => match chars.next() {
                    // The first two are escaped for the expansion's own sake.
                    Some(c @ ('}' | '/' | '*' | '?' | '\\')) => Token::Char(c),
                    Some(c) => return Err(format!("`\\{c}` is no escape in a pattern")),
                    None => return Err("a pattern ends with a `\\`".into()),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// Removes the shortest or longest beginning that matches.
    pub(super) fn trim_start(&self, value: &str, longest: bool) -> Result<String, String> {
        let chars: Vec<char> = value.chars().collect();
        let end = matched(&self.0, &chars, longest, &mut 0)?;
        Ok(chars[end.unwrap_or(0)..].iter().collect())
    }

    /// Removes the shortest or longest end that matches.
    pub(super) fn trim_end(&self, value: &str, longest: bool) -> Result<String, String> {
        let backwards: Vec<char> = value.chars().rev().collect();
        let tokens: Vec<Token> = self.0.iter().rev().copied().collect();
        let end = matched(&tokens, &backwards, longest, &mut 0)?;
        Ok(backwards[end.unwrap_or(0)..].iter().rev().collect())
    }

    /// Replaces the first match, or all of them; each as long as it can be.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> Result<String, String> {
        let chars: Vec<char> = value.chars().collect();
        let (mut out, mut at, mut work) = (String::new(), 0, 0);
        while at <= chars.len() {
            match matched(&self.0, &chars[at..], true, &mut work)? {
                Some(length) => {
                    out.push_str(replacement);
                    at += length;
                    if !all {
                        break;
                    }
                    if length == 0 {
                        out.extend(chars.get(at));
                        at += 1;
                    }
                }
                None => {
                    out.extend(chars.get(at));
                    at += 1;
                }
            }
        }
        out.extend(chars.get(at..).into_iter().flatten());
        Ok(out)
    }
}

/// Returns how much of the beginning of `chars` matches; none where nothing does.
fn matched(
    tokens: &[Token],
    chars: &[char],
    longest: bool,
    work: &mut usize,
) -> Result<Option<usize>, String> {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    let mut found = None;
    for at in 0..=chars.len() {
        for index in 0..tokens.len() {
            reached[index + 1] |= reached[index] && tokens[index] == Token::Star;
        }
        if reached[tokens.len()] {
            found = Some(at);
            if !longest {
                break;
            }
        }
        let Some(&c) = chars.get(at).filter(|_| reached.contains(&true)) else { break };
        *work += tokens.len() + 1;
        if *work > WORK_MAX {
            return Err("the pattern takes too long on a value of this length".into());
        }
        let mut next = vec![false; tokens.len() + 1];
        for (index, token) in tokens.iter().enumerate().filter(|(index, _)| reached[*index]) {
            match token {
                Token::Char(wanted) => next[index + 1] |= *wanted == c,
                Token::Any => next[index + 1] = true,
                Token::Star => next[index] = true,
            }
        }
        reached = next;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_the_shortest_or_the_longest() {
        let of = |pattern: &str| Wildcard::new(pattern).unwrap();
        assert_eq!(of("*/").trim_start("a/b/c", false).unwrap(), "b/c");
        assert_eq!(of("*/").trim_start("a/b/c", true).unwrap(), "c");
        assert_eq!(of("/*").trim_end("a/b/c", false).unwrap(), "a/b");
        assert_eq!(of("/*").trim_end("a/b/c", true).unwrap(), "a");
        assert_eq!(of("?").replace("abc", "x", true).unwrap(), "xxx");
        assert_eq!(of("\\*").replace("a*b", "x", false).unwrap(), "axb");
        assert_eq!(of("zz").replace("abc", "x", true).unwrap(), "abc");
        assert_eq!(of("abc*").replace("", "x", true).unwrap(), "");
    }

    #[test]
    fn a_pattern_that_would_take_for_ever_is_refused() {
        let value = "a".repeat(100_000);
        assert!(Wildcard::new("a*a*a*b").unwrap().replace(&value, "", true).is_err());
    }
}
