//! The order of Python's versions.
//!
//! Source: the version specifiers of packaging.python.org (PEP 440), "Summary of permitted suffixes and relative ordering".

use std::cmp::Ordering;

use super::order::{number, runs};

/// Compares two versions. What is no version by the rules comes before all that are.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    match (parse(a), parse(b)) {
        (Some(a), Some(b)) => {
            let epoch = number(&a.epoch, &b.epoch);
            let release = || numbers(&a.release, &b.release);
            let suffix = || a.stage().cmp(&b.stage()).then_with(|| optional(&a.pre_number, &b.pre_number));
            // Without a post-release comes first, without a development release last.
            let post = || presence(&a.post, &b.post, Ordering::Less);
            let dev = || presence(&a.dev, &b.dev, Ordering::Greater);
            epoch.then_with(release).then_with(suffix).then_with(post).then_with(dev).then_with(|| {
                let (a, b) = (runs(&a.local), runs(&b.local));
                local(&a, &b)
            })
        }
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => a.cmp(b),
    }
}

#[derive(Default)]
struct Version {
    epoch: String,
    release: Vec<String>,
    /// 1 for alpha, 2 for beta, 3 for a candidate.
    pre: Option<u8>,
    pre_number: Option<String>,
    post: Option<String>,
    dev: Option<String>,
    local: String,
}

impl Version {
    /// `1.0.dev1` is before `1.0a1`, but `1.0.post1.dev1` is after `1.0`.
    fn stage(&self) -> u8 {
        match (self.pre, &self.post, &self.dev) {
            (Some(pre), ..) => pre,
            (None, None, Some(_)) => 0,
            (None, ..) => 4,
        }
    }
}

fn parse(text: &str) -> Option<Version> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_prefix('v').unwrap_or(&text);
    let (public, local) = text.split_once('+').unwrap_or((text, ""));
    let (epoch, public) = public.split_once('!').unwrap_or(("0", public));
    let end = public.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(public.len());
    let (release, suffix) = public.split_at(end);
    let release: Vec<String> = release.trim_end_matches('.').split('.').map(str::to_owned).collect();
    if release.iter().any(String::is_empty) || !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut version =
        Version { epoch: epoch.to_owned(), release, local: local.to_owned(), ..Version::default() };
    // `1.0-1` is `1.0.post1`.
    let implicit = suffix.strip_prefix('-').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if let Some(rest) = implicit {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        version.post = Some(rest[..end].to_owned());
        return suffixes(version, &rest[end..]);
    }
    suffixes(version, suffix)
}

fn suffixes(mut version: Version, text: &str) -> Option<Version> {
    let mut parts = runs(text).into_iter().peekable();
    while let Some(word) = parts.next() {
        let digits = parts.next_if(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        let digits = digits.unwrap_or("0").to_owned();
        match word {
            "a" | "alpha" => (version.pre, version.pre_number) = (Some(1), Some(digits)),
            "b" | "beta" => (version.pre, version.pre_number) = (Some(2), Some(digits)),
            "c" | "rc" | "pre" | "preview" => (version.pre, version.pre_number) = (Some(3), Some(digits)),
            "post" | "rev" | "r" => version.post = Some(digits),
            "dev" => version.dev = Some(digits),
            _ => return None,
        }
    }
    Some(version)
}

/// Trailing zeros count nothing.
fn numbers(a: &[String], b: &[String]) -> Ordering {
    let at = |list: &[String], index: usize| list.get(index).map_or("0", String::as_str).to_owned();
    let orders = (0..a.len().max(b.len())).map(|index| number(&at(a, index), &at(b, index)));
    orders.into_iter().find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn optional(a: &Option<String>, b: &Option<String>) -> Ordering {
    number(a.as_deref().unwrap_or("0"), b.as_deref().unwrap_or("0"))
}

/// Compares where both are; `absent` is what one without it is to one with it.
fn presence(a: &Option<String>, b: &Option<String>, absent: Ordering) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => absent,
        (Some(_), None) => absent.reverse(),
        (Some(a), Some(b)) => number(a, b),
    }
}

/// Of local versions a number is after a word, and a longer one after a shorter.
fn local(a: &[&str], b: &[&str]) -> Ordering {
    let is_number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    for (a, b) in a.iter().zip(b) {
        let order = match (is_number(a), is_number(b)) {
            (true, true) => number(a, b),
            (left, right) if left != right => left.cmp(&right),
            _ => a.cmp(b),
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::super::order::tests::ascends;
    use super::*;

    #[test]
    fn versions_order_as_the_specification_says() {
        ascends(
            compare,
            &[
                "no version",
                "1.0.dev456",
                "1.0a1",
                "1.0a2.dev456",
                "1.0a2",
                "1.0a12.dev456",
                "1.0a12",
                "1.0b1.dev456",
                "1.0b2",
                "1.0b2.post345.dev456",
                "1.0b2.post345",
                "1.0rc1.dev456",
                "1.0rc1",
                "1.0",
                "1.0+abc.5",
                "1.0+abc.7",
                "1.0+5",
                "1.0.post456.dev34",
                "1.0.post456",
                "1.0.15",
                "1.1.dev1",
                "1.10",
                "1!0.1",
            ],
        );
    }

    #[test]
    fn spellings_of_one_version_are_equal() {
        for (a, b) in [
            ("1.0", "1"),
            ("v1.0", "1.0.0"),
            ("1.0-alpha.1", "1.0a1"),
            ("1.0-1", "1.0.post1"),
            ("1.0C1", "1.0rc1"),
        ] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }
}
