//! Suggestions for misspelt names.

/// Longer names are not compared: the distance is quadratic, and nobody misspells a paragraph.
const NAME_CHARS_MAX: usize = 60;

/// A stack of thousands of services must not make every unknown name slow.
const CANDIDATES_MAX: usize = 20_000;

/// Returns the nearest name, if it is near enough to be meant.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = match name.chars().count() {
        0 => return None,
        1..=3 => 1,
        4..=7 => 2,
        n if n <= NAME_CHARS_MAX => 3,
        _ => return None,
    };
    let candidates = known.take(CANDIDATES_MAX).filter(|k| k.len().abs_diff(name.len()) <= limit * 4);
    let scored = candidates.map(|k| (distance(&name.to_lowercase(), &k.to_lowercase()), k));
    // A name must keep something: `a` is no misspelling of `b`.
    let near = scored.filter(|(d, k)| *d <= limit && *d < k.chars().count());
    near.min().map(|(_, k)| k)
}

/// Returns the suggestion as help.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|k| format!("did you mean `{k}`?"))
}

/// The edit distance with swaps of neighbours (Damerau-Levenshtein, optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(NAME_CHARS_MAX).collect();
    let b: Vec<char> = b.chars().take(NAME_CHARS_MAX).collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_suggested_and_a_far_one_is_not() {
        let known = ["replicas", "resources", "rollout", "env"];
        let suggest = |name| nearest(name, known.into_iter());
        assert_eq!(suggest("replcias"), Some("replicas"));
        assert_eq!(suggest("Env"), Some("env"));
        assert_eq!(suggest("resource"), Some("resources"));
        assert_eq!(suggest("banana"), None);
        assert_eq!(suggest(""), None);
        assert_eq!(nearest("a", ["b"].into_iter()), None);
    }
}
