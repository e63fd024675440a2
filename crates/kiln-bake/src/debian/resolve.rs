//! Which packages a base needs: deterministic, and the same as a person would choose by hand.
//!
//! Breadth-first from the roots. A group of alternatives that something chosen already satisfies costs nothing; else its
//! first real package is taken, else the provider of the highest priority. There is no search: a choice is never
//! taken back, so that the outcome follows from the roots and the index alone and a conflict can be explained.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kiln_model::recipe::DebianVariant;

use super::index::{Index, Package};
use super::relation::{Relation, groups, relations};

/// Why no set of packages fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// A package that the recipe lists is in none of the archives.
    #[error("there is no package `{name}` in {suite}")]
    UnknownPackage {
        /// The name.
        name: String,
        /// The suite.
        suite: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// Nothing satisfies a dependency.
    #[error("nothing in {suite} satisfies `{relation}`, needed by {chain}")]
    Unsatisfiable {
        /// The group of alternatives.
        relation: String,
        /// The suite.
        suite: String,
        /// From the recipe's package to the one that needs it.
        chain: String,
    },
    /// Two packages that are both needed exclude each other.
    #[error(transparent)]
    Conflict(Box<Conflict>),
}

/// Two packages that are both needed exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{package}` ({chain}) declares `{field}: {relation}`, which excludes `{other}` ({other_chain})")]
pub struct Conflict {
    /// The package with the field.
    pub package: String,
    /// `Conflicts` or `Breaks`.
    pub field: &'static str,
    /// The relation.
    pub relation: String,
    /// Why the package is there.
    pub chain: String,
    /// The excluded package.
    pub other: String,
    /// Why that one is there.
    pub other_chain: String,
}

/// A tree is unpacked with a merged /usr, so what asserts that is preferred to what would convert it (and needs perl).
const MERGED: &str = "usr-is-merged";

/// Chooses packages for a base; the answer is in the order of names.
pub(crate) fn resolve<'a>(
    index: &'a Index,
    suite: &str,
    variant: DebianVariant,
    packages: &'a [String],
) -> Result<Vec<Package<'a>>, ResolveError> {
    let mut choice = Choice { index, suite, chosen: BTreeMap::new(), queue: VecDeque::new() };
    // What the recipe lists comes first, so that a dependency with alternatives prefers it.
    for name in packages {
        let package = choice.root(name)?;
        choice.take(package, None);
    }
    if variant == DebianVariant::MinBase {
        let package = choice.root("apt")?;
        choice.take(package, None);
    }
    for name in index.essential().iter().filter(|_| variant != DebianVariant::Tools) {
        choice.take(index.get(name).expect("the index lists only its own"), None);
    }
    while let Some(package) = choice.queue.pop_front() {
        for field in ["Pre-Depends", "Depends"] {
            for group in groups(package.fields.get(field).unwrap_or("")) {
                choice.satisfy(package, &group)?;
            }
        }
    }
    choice.check()?;
    Ok(choice.chosen.into_values().map(|taken| taken.package).collect())
}

struct Choice<'a, 'b> {
    index: &'a Index,
    suite: &'b str,
    chosen: BTreeMap<&'a str, Taken<'a>>,
    queue: VecDeque<Package<'a>>,
}

struct Taken<'a> {
    package: Package<'a>,
    /// The package that asked for it; none for a root.
    by: Option<&'a str>,
}

impl<'a> Choice<'a, '_> {
    /// Finds a package that the recipe lists: by its name, or as a virtual one with a single provider.
    fn root(&self, name: &'a str) -> Result<Package<'a>, ResolveError> {
        if let Some(package) = self.index.get(name) {
            return Ok(package);
        }
        match self.index.providers(&Relation::parse(name)).as_slice() {
            [only] => Ok(*only),
            _ => Err(ResolveError::UnknownPackage {
                name: name.into(),
                suite: self.suite.into(),
                nearest: self.index.nearest(name).map(Into::into),
            }),
        }
    }

    fn take(&mut self, package: Package<'a>, by: Option<&'a str>) {
        if !self.chosen.contains_key(package.name) {
            self.chosen.insert(package.name, Taken { package, by });
            self.queue.push_back(package);
        }
    }

    fn satisfy(&mut self, package: Package<'a>, group: &[Relation<'a>]) -> Result<(), ResolveError> {
        if group.iter().any(|relation| self.holds(relation)) {
            return Ok(());
        }
        let merged =
            group.iter().filter(|relation| relation.name == MERGED).filter_map(|_| self.index.get(MERGED));
        let real = group.iter().filter_map(|relation| {
            self.index.get(relation.name).filter(|found| relation.accepts(found.version))
        });
        let provided = group.iter().flat_map(|relation| self.index.providers(relation));
        let found: Vec<_> = merged.chain(real).chain(provided).collect();
        // Where every candidate is excluded the first is taken, so that the check names the conflict.
        let free = found.iter().find(|candidate| self.exclusion(**candidate).is_none());
        match free.or(found.first()) {
            Some(candidate) => {
                self.take(*candidate, Some(package.name));
                Ok(())
            }
            None => Err(ResolveError::Unsatisfiable {
                relation: group.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
                suite: self.suite.into(),
                chain: self.chain(package.name),
            }),
        }
    }

    fn holds(&self, relation: &Relation<'_>) -> bool {
        self.chosen.get(relation.name).is_some_and(|taken| relation.accepts(taken.package.version))
            || self
                .chosen
                .values()
                .any(|taken| taken.package.provides().any(|provided| relation.accepts_provided(&provided)))
    }

    /// Returns the first relation between a package and what is chosen that excludes one of them.
    fn exclusion(&self, package: Package<'a>) -> Option<(Package<'a>, &'static str, String, Package<'a>)> {
        for taken in self.chosen.values().filter(|taken| taken.package.name != package.name) {
            for (one, other) in [(package, taken.package), (taken.package, package)] {
                for field in ["Conflicts", "Breaks"] {
                    let excluded = relations(one.fields.get(field).unwrap_or(""))
                        .find(|relation| other.satisfies(relation));
                    if let Some(relation) = excluded {
                        return Some((one, field, relation.to_string(), other));
                    }
                }
            }
        }
        None
    }

    fn check(&self) -> Result<(), ResolveError> {
        for taken in self.chosen.values() {
            if let Some((one, field, relation, other)) = self.exclusion(taken.package) {
                return Err(ResolveError::Conflict(Box::new(Conflict {
                    package: one.name.into(),
                    field,
                    relation,
                    chain: self.chain(one.name),
                    other: other.name.into(),
                    other_chain: self.chain(other.name),
                })));
            }
        }
        Ok(())
    }

    /// Prints why a package is there: `python3-minimal → python3.11-minimal → libssl3`.
    fn chain(&self, name: &'a str) -> String {
        let mut names = vec![name];
        let mut seen = BTreeSet::from([name]);
        let mut at = name;
        while let Some(by) = self.chosen.get(at).and_then(|taken| taken.by) {
            if !seen.insert(by) {
                break;
            }
            names.push(by);
            at = by;
        }
        names.reverse();
        names.join(" → ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Index {
        Index::new(vec![text.into()])
    }

    fn solve(text: &str, roots: &[&str]) -> Result<Vec<String>, ResolveError> {
        let roots: Vec<String> = roots.iter().map(|name| (*name).into()).collect();
        let index = index(text);
        let found = resolve(&index, "bookworm", DebianVariant::Essential, &roots)?;
        Ok(found.iter().map(|package| format!("{}={}", package.name, package.version)).collect())
    }

    #[test]
    fn the_first_real_alternative_wins_over_an_earlier_virtual_one() {
        let text = "Package: a\nVersion: 1\nDepends: mta | exim\n\nPackage: exim\nVersion: 4\n\n\
                    Package: postfix\nVersion: 3\nProvides: mta\n";
        assert_eq!(solve(text, &["a"]).unwrap(), ["a=1", "exim=4"]);
    }

    #[test]
    fn of_several_providers_the_highest_priority_wins_then_the_name() {
        let text = "Package: a\nVersion: 1\nPre-Depends: awk\n\nPackage: gawk\nVersion: 5\nProvides: awk\nPriority: optional\n\n\
                    Package: mawk\nVersion: 1.3\nProvides: awk\nPriority: required\n";
        assert_eq!(solve(text, &["a"]).unwrap(), ["a=1", "mawk=1.3"]);
    }

    #[test]
    fn an_alternative_that_the_recipe_lists_is_preferred() {
        let text =
            "Package: a\nVersion: 1\nDepends: x | y\n\nPackage: x\nVersion: 1\n\nPackage: y\nVersion: 1\n";
        assert_eq!(solve(text, &["a", "y"]).unwrap(), ["a=1", "y=1"]);
    }

    #[test]
    fn essential_packages_are_always_there_and_the_newest_version_is_taken() {
        let texts = vec![
            "Package: dpkg\nVersion: 1.21\nEssential: yes\n".to_owned(),
            "Package: dpkg\nVersion: 1.22\nEssential: yes\n".to_owned(),
        ];
        let index = Index::new(texts);
        let found = resolve(&index, "x", DebianVariant::Essential, &[]).unwrap();
        assert_eq!((found[0].version, found[0].archive), ("1.22", 1));
    }

    #[test]
    fn tools_have_what_they_need_and_nothing_that_every_system_has() {
        let text = "Package: dpkg\nVersion: 1\nEssential: yes\n\nPackage: libc\nVersion: 2\n\n\
                    Package: python\nVersion: 3\nDepends: libc\n";
        let (index, roots) = (index(text), ["python".to_owned()]);
        let found = resolve(&index, "x", DebianVariant::Tools, &roots).unwrap();
        assert_eq!(found.iter().map(|package| package.name).collect::<Vec<_>>(), ["libc", "python"]);
    }

    #[test]
    fn a_package_that_does_not_exist_is_named_with_what_was_meant() {
        let error = solve("Package: curl\nVersion: 1\n", &["crul"]).unwrap_err();
        assert_eq!(
            error,
            ResolveError::UnknownPackage {
                name: "crul".into(),
                suite: "bookworm".into(),
                nearest: Some("curl".into())
            }
        );
    }

    #[test]
    fn a_dependency_that_nothing_satisfies_names_its_chain() {
        let text = "Package: a\nVersion: 1\nDepends: b\n\nPackage: b\nVersion: 1\nDepends: c (>= 2)\n\nPackage: c\nVersion: 1\n";
        let error = solve(text, &["a"]).unwrap_err();
        assert_eq!(error.to_string(), "nothing in bookworm satisfies `c (>= 2)`, needed by a → b");
    }

    #[test]
    fn a_conflict_names_both_chains_and_an_alternative_avoids_it() {
        let base = "Package: a\nVersion: 1\nDepends: x\n\nPackage: b\nVersion: 1\nDepends: y\n\nPackage: x\nVersion: 1\nConflicts: y\n\n\
                    Package: y\nVersion: 1\n";
        let error = solve(base, &["a", "b"]).unwrap_err().to_string();
        assert_eq!(error, "`x` (a → x) declares `Conflicts: y`, which excludes `y` (b → y)");
        let other = base.replace("Depends: y", "Depends: y | z") + "\nPackage: z\nVersion: 1\n";
        assert_eq!(solve(&other, &["a", "b"]).unwrap(), ["a=1", "b=1", "x=1", "z=1"]);
    }

    #[test]
    fn a_package_may_exclude_what_it_provides_itself() {
        let text = "Package: a\nVersion: 1\nProvides: mta\nConflicts: mta\n";
        assert_eq!(solve(text, &["a"]).unwrap(), ["a=1"]);
    }
}
