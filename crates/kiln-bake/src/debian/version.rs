//! Debian's version order.
//!
//! Source: Debian Policy 5.6.12, and the comparison of dpkg's `lib/dpkg/version.c`.

use std::cmp::Ordering;

/// Compares two versions as dpkg does: epoch, upstream version, revision.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| part(a.1, b.1)).then_with(|| part(a.2, b.2))
}

fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Alternates runs of non-digits, compared by [`weight`], and of digits, compared as numbers.
fn part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while !a.is_empty() || !b.is_empty() {
        let (words_a, words_b) = (run(&mut a, |c| !c.is_ascii_digit()), run(&mut b, |c| !c.is_ascii_digit()));
        for i in 0..words_a.len().max(words_b.len()) {
            let order = weight(words_a.get(i)).cmp(&weight(words_b.get(i)));
            if order.is_ne() {
                return order;
            }
        }
        let (digits_a, digits_b) = (run(&mut a, u8::is_ascii_digit), run(&mut b, u8::is_ascii_digit));
        let (digits_a, digits_b) = (strip_zeros(digits_a), strip_zeros(digits_b));
        let order = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
        if order.is_ne() {
            return order;
        }
    }
    Ordering::Equal
}

fn run<'a>(text: &mut &'a [u8], wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|c| !wanted(c)).unwrap_or(text.len());
    let (head, tail) = text.split_at(end);
    *text = tail;
    head
}

fn strip_zeros(digits: &[u8]) -> &[u8] {
    let first = digits.iter().position(|c| *c != b'0').unwrap_or(digits.len());
    &digits[first..]
}

/// `~` sorts before the end, the end before letters, letters before everything else.
fn weight(byte: Option<&u8>) -> i32 {
    match byte {
        None => 0,
        Some(b'~') => -1,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_order_as_dpkg_orders_them() {
        let ordered = [
            "0~~",
            "0~",
            "0",
            "1.0~beta1~svn1245",
            "1.0~beta1",
            "1.0",
            "1.0-0",
            "1.0-1",
            "1.0-1+b1",
            "1.0-2",
            "1.0-10",
            "1.0a",
            "1.0+b",
            "1.0.1",
            "1.2",
            "1.10",
            "1:0.1",
            "2:0",
        ];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                // An empty revision equals revision 0.
                let equal = [*a, *b] == ["1.0", "1.0-0"] || [*a, *b] == ["1.0-0", "1.0"];
                let expected = if equal { Ordering::Equal } else { i.cmp(&j) };
                assert_eq!(compare(a, b), expected, "{a} against {b}");
            }
        }
    }

    #[test]
    fn leading_zeros_count_nothing_and_long_numbers_do_not_overflow() {
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
        assert_eq!(compare("99999999999999999999999", "100000000000000000000000"), Ordering::Less);
    }
}
