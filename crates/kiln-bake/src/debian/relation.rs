//! Relations between packages: `Depends: a (>= 1) | b, c`.
//!
//! Source: Debian Policy 7.1. In binary packages architecture restrictions and build profiles are already resolved.

use std::cmp::Ordering;
use std::fmt;

use super::version;

/// One alternative: a package and which versions of it will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Relation<'a> {
    /// The package's name, without an architecture qualifier.
    pub(crate) name: &'a str,
    /// The bound, if there is one.
    pub(crate) bound: Option<(Operator, &'a str)>,
    /// Whether it names a foreign architecture, which a system of one architecture never satisfies.
    foreign: bool,
}

/// How a version must compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operator {
    Earlier,
    AtMost,
    Exactly,
    AtLeast,
    Later,
}

impl Operator {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "<<" => Self::Earlier,
            // Policy 7.1: `<` and `>` are old spellings of `<=` and `>=`.
            "<=" | "<" => Self::AtMost,
            "=" => Self::Exactly,
            ">=" | ">" => Self::AtLeast,
            ">>" => Self::Later,
            _ => return None,
        })
    }

    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Earlier => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Exactly => order.is_eq(),
            Self::AtLeast => order.is_ge(),
            Self::Later => order.is_gt(),
        }
    }
}

impl fmt::Display for Relation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        let Some((operator, version)) = self.bound else { return Ok(()) };
        let sign = match operator {
            Operator::Earlier => "<<",
            Operator::AtMost => "<=",
            Operator::Exactly => "=",
            Operator::AtLeast => ">=",
            Operator::Later => ">>",
        };
        write!(f, " ({sign} {version})")
    }
}

impl<'a> Relation<'a> {
    /// Parses one alternative; text that breaks the rule is a relation that nothing satisfies.
    pub(crate) fn parse(text: &'a str) -> Self {
        let (head, bound) = match text.split_once('(') {
            Some((head, tail)) => (head, Some(tail.split(')').next().unwrap_or(""))),
            None => (text, None),
        };
        let head = head.split(['[', '<']).next().unwrap_or("").trim();
        let (name, qualifier) = head.split_once(':').unwrap_or((head, ""));
        let foreign = !matches!(qualifier, "" | "any" | "native" | super::ARCH);
        let Some(bound) = bound else { return Self { name, bound: None, foreign } };
        let bound = bound.trim();
        let sign_end = bound.find(|c| !matches!(c, '<' | '=' | '>')).unwrap_or(bound.len());
        match Operator::parse(&bound[..sign_end]) {
            Some(operator) => Self { name, bound: Some((operator, bound[sign_end..].trim())), foreign },
            None => Self { name, bound: None, foreign: true },
        }
    }

    /// Tells whether a real package of this version satisfies the relation.
    pub(crate) fn accepts(&self, version: &str) -> bool {
        !self.foreign
            && self.bound.is_none_or(|(operator, bound)| operator.accepts(version::compare(version, bound)))
    }

    /// Tells whether `provided` (of a `Provides` field) satisfies the relation.
    ///
    /// Policy 7.5: an unversioned provide satisfies only an unversioned relation.
    pub(crate) fn accepts_provided(&self, provided: &Relation<'_>) -> bool {
        if self.foreign || self.name != provided.name {
            return false;
        }
        match (self.bound, provided.bound) {
            (None, _) => true,
            (Some(_), Some((Operator::Exactly, version))) => self.accepts(version),
            _ => false,
        }
    }
}

/// Splits a dependency field into groups; one alternative of each group must hold.
pub(crate) fn groups(field: &str) -> impl Iterator<Item = Vec<Relation<'_>>> {
    field
        .split(',')
        .map(str::trim)
        .filter(|group| !group.is_empty())
        .map(|group| group.split('|').map(|one| Relation::parse(one.trim())).collect())
}

/// Splits a field without alternatives, such as `Provides` or `Breaks`.
pub(crate) fn relations(field: &str) -> impl Iterator<Item = Relation<'_>> {
    field.split(',').map(str::trim).filter(|one| !one.is_empty()).map(Relation::parse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_splits_into_groups_of_alternatives() {
        let all: Vec<_> = groups("libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0, python3:any").collect();
        assert_eq!(all.len(), 3);
        assert_eq!(all[1][0].to_string(), "debconf (>= 0.5)");
        assert_eq!(all[1][1].name, "debconf-2.0");
        assert_eq!(all[2][0].name, "python3");
        assert!(all[2][0].accepts("3.11.2-1"));
    }

    #[test]
    fn bounds_hold_as_policy_says() {
        let cases = [("a (<< 2)", "1", true), ("a (<< 2)", "2", false), ("a (= 1-1)", "1-1", true)];
        for (relation, version, holds) in cases {
            assert_eq!(Relation::parse(relation).accepts(version), holds, "{relation} {version}");
        }
        assert!(!Relation::parse("a:i386").accepts("1"));
        assert!(!Relation::parse("a (~ 1)").accepts("1"));
    }

    #[test]
    fn an_unversioned_provide_satisfies_no_bound() {
        let need = Relation::parse("perlapi (>= 5)");
        assert!(!need.accepts_provided(&Relation::parse("perlapi")));
        assert!(need.accepts_provided(&Relation::parse("perlapi (= 5.36)")));
        assert!(Relation::parse("perlapi").accepts_provided(&Relation::parse("perlapi (= 5.36)")));
    }
}
