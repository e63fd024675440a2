//! The order of npm's, crates.io's and Go's versions.
//!
//! Source: Semantic Versioning 2.0.0, section 11. Parts of the core that are missing count as 0, as Go writes its own versions.

use std::cmp::Ordering;

use super::order::number;

/// Compares two versions; a `v` before them and the build metadata behind them count nothing.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let ((core_a, pre_a), (core_b, pre_b)) = (split(a), split(b));
    let part = |core: &str, index: usize| core.split('.').nth(index).unwrap_or("0").to_owned();
    let parts = core_a.split('.').count().max(core_b.split('.').count());
    let cores =
        (0..parts).map(|index| identifier(&part(core_a, index), &part(core_b, index))).find(|o| o.is_ne());
    cores.unwrap_or(Ordering::Equal).then_with(|| match (pre_a.is_empty(), pre_b.is_empty()) {
        (true, true) => Ordering::Equal,
        // A pre-release comes before what it precedes.
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) => pre_release(pre_a, pre_b),
    })
}

/// Splits into the core and the pre-release, which Go's own versions have without a sign between: `1.22rc1`.
fn split(version: &str) -> (&str, &str) {
    let version = version.trim();
    let version = version.strip_prefix(['v', 'V']).unwrap_or(version);
    let version = version.split('+').next().unwrap_or(version);
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let (core, rest) = version.split_at(end);
    (core, rest.strip_prefix('-').unwrap_or(rest))
}

fn pre_release(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (identifiers(a).into_iter(), identifiers(b).into_iter());
    loop {
        match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => {
                let order = identifier(a, b);
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

/// `rc1` is what Go calls the version that databases call `rc.1`.
fn identifiers(text: &str) -> Vec<&str> {
    let go = ["rc", "beta"].iter().find_map(|word| {
        let digits = text.strip_prefix(word)?;
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| vec![*word, digits])
    });
    go.unwrap_or_else(|| text.split('.').collect())
}

/// Numbers come before words.
fn identifier(a: &str, b: &str) -> Ordering {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        (true, true) => number(a, b),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
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
                "0.9.9",
                "1.0.0-alpha",
                "1.0.0-alpha.1",
                "1.0.0-alpha.beta",
                "1.0.0-beta",
                "1.0.0-beta.2",
                "1.0.0-beta.11",
                "1.0.0-rc.1",
                "1.0.0",
                "1.9.0",
                "1.10.0",
                "2.0.0",
                "99999999999999999999999.0.0",
            ],
        );
    }

    #[test]
    fn build_metadata_and_a_leading_v_count_nothing_and_go_is_understood() {
        assert_eq!(compare("v1.2.3+incompatible", "1.2.3"), Ordering::Equal);
        assert_eq!(compare("1.22", "1.22.0"), Ordering::Equal);
        assert_eq!(compare("1.22rc1", "1.22.0-rc.1"), Ordering::Equal);
        assert_eq!(compare("1.22rc2", "1.22.0"), Ordering::Less);
        assert_eq!(compare("v0.0.0-20210101000000-abc", "0.0.0-20220101000000-abc"), Ordering::Less);
    }
}
