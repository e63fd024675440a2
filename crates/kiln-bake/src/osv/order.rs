//! Which order the versions of an ecosystem have.

use std::cmp::Ordering;

use super::{maven, pep440, semver};
use crate::debian::version as debian;
use crate::inventory::Ecosystem;

/// Compares two versions of an ecosystem.
pub(super) fn compare(ecosystem: Ecosystem, a: &str, b: &str) -> Ordering {
    match ecosystem {
        Ecosystem::Debian => debian::compare(a, b),
        Ecosystem::Cargo | Ecosystem::Go | Ecosystem::Npm => semver::compare(a, b),
        Ecosystem::Maven => maven::compare(a, b),
        Ecosystem::Python => pep440::compare(a, b),
    }
}

/// Compares two runs of digits as numbers of any length.
pub(super) fn number(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

/// Splits into runs of digits and runs of letters; what stands between counts nothing.
pub(super) fn runs(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for part in text.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let is_digit = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
            let (run, after) = rest.split_at(end);
            found.push(run);
            rest = after;
        }
    }
    found
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each of the versions is before all that follow it.
    pub(crate) fn ascends(compare: fn(&str, &str) -> Ordering, versions: &[&str]) {
        for (i, a) in versions.iter().enumerate() {
            for (j, b) in versions.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} against {b}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_two_texts_have_an_order_that_turns_with_them(a in "[0-9a-z.+!:~_é-]{0,12}", b in "[0-9a-z.+!:~_é-]{0,12}") {
            for ecosystem in [Ecosystem::Debian, Ecosystem::Cargo, Ecosystem::Maven, Ecosystem::Python] {
                prop_assert_eq!(compare(ecosystem, &a, &b), compare(ecosystem, &b, &a).reverse());
                prop_assert_eq!(compare(ecosystem, &a, &a), Ordering::Equal);
            }
        }
    }
}
