//! The packages that the archives of one base offer.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;

use super::control::{Paragraph, paragraphs};
use super::relation::{Relation, relations};
use super::version;

/// Everything on offer: per name the newest version of all archives, as apt's default policy has it.
#[derive(Debug, Default)]
pub(crate) struct Index {
    texts: Vec<String>,
    newest: BTreeMap<String, Place>,
    providers: BTreeMap<String, Vec<String>>,
    essential: Vec<String>,
}

#[derive(Debug, Clone)]
struct Place {
    archive: usize,
    range: Range<usize>,
}

/// One package on offer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its version.
    pub(crate) version: &'a str,
    /// Which of the archives has it, in the order in which they were given.
    pub(crate) archive: usize,
    /// All its fields.
    pub(crate) fields: Paragraph<'a>,
}

impl<'a> Package<'a> {
    /// Returns what it declares to provide.
    pub(crate) fn provides(self) -> impl Iterator<Item = Relation<'a>> {
        relations(self.fields.get("Provides").unwrap_or(""))
    }

    /// Ranks by Debian's priority, the most wanted first.
    pub(crate) fn priority(self) -> u8 {
        match self.fields.get("Priority") {
            Some("required") => 0,
            Some("important") => 1,
            Some("standard") => 2,
            Some("optional") => 3,
            _ => 4,
        }
    }

    /// Tells whether this very package satisfies a relation, by its name or by what it provides.
    pub(crate) fn satisfies(self, relation: &Relation<'_>) -> bool {
        (self.name == relation.name && relation.accepts(self.version))
            || self.provides().any(|provided| relation.accepts_provided(&provided))
    }
}

impl Index {
    /// Reads `Packages` files, one per archive.
    pub(crate) fn new(texts: Vec<String>) -> Self {
        let mut newest: BTreeMap<String, Place> = BTreeMap::new();
        for (archive, text) in texts.iter().enumerate() {
            for paragraph in paragraphs(text) {
                let (Some(name), Some(version)) = (paragraph.get("Package"), paragraph.get("Version")) else {
                    continue;
                };
                let start = paragraph.text().as_ptr() as usize - text.as_ptr() as usize;
                let place = Place { archive, range: start..start + paragraph.text().len() };
                match newest.get_mut(name) {
                    None => drop(newest.insert(name.into(), place)),
                    Some(old) => {
                        let kept = Paragraph::new(&texts[old.archive][old.range.clone()]);
                        let kept = kept.get("Version").unwrap_or("");
                        // Of equal versions the first archive's stays: the order of archives is the user's.
                        if version::compare(version, kept) == Ordering::Greater {
                            *old = place;
                        }
                    }
                }
            }
        }
        let mut index = Self { texts, newest, ..Self::default() };
        index.learn_roles();
        index
    }

    fn learn_roles(&mut self) {
        let mut providers: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut essential = Vec::new();
        for package in self.iter() {
            for provided in package.provides() {
                providers.entry(provided.name.into()).or_default().push(package.name.into());
            }
            if package.fields.get("Essential") == Some("yes") {
                essential.push(package.name.to_owned());
            }
        }
        (self.providers, self.essential) = (providers, essential);
    }

    /// Returns the newest version of a package.
    pub(crate) fn get(&self, name: &str) -> Option<Package<'_>> {
        self.newest.get_key_value(name).map(|(name, place)| self.at(name, place))
    }

    /// Returns all packages by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Package<'_>> {
        self.newest.iter().map(|(name, place)| self.at(name, place))
    }

    fn at<'a>(&'a self, name: &'a str, place: &Place) -> Package<'a> {
        let fields = Paragraph::new(&self.texts[place.archive][place.range.clone()]);
        Package { name, version: fields.get("Version").unwrap_or(""), archive: place.archive, fields }
    }

    /// Returns the packages that provide a relation, the most wanted first, then by name.
    pub(crate) fn providers(&self, relation: &Relation<'_>) -> Vec<Package<'_>> {
        let names = self.providers.get(relation.name).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<_> = names
            .iter()
            .filter_map(|name| self.get(name))
            .filter(|package| package.provides().any(|provided| relation.accepts_provided(&provided)))
            .collect();
        found.sort_by_key(|package| (package.priority(), package.name));
        found.dedup_by_key(|package| package.name);
        found
    }

    /// Returns the names of the packages that every system must have.
    pub(crate) fn essential(&self) -> &[String] {
        &self.essential
    }

    /// Returns the name that a misspelt one probably meant.
    pub(crate) fn nearest(&self, name: &str) -> Option<&str> {
        let names = self.newest.keys().chain(self.providers.keys()).map(String::as_str);
        crate::nearest::nearest(name, names)
    }
}
