//! What packages say that their licences are, as SPDX expressions.
//!
//! Nothing is concluded: a name that is on SPDX's list, or that Debian writes for one, becomes it, and anything else becomes a
//! reference of the document's own beside the words as they were found.

use std::collections::{BTreeMap, BTreeSet};

use crate::debian::control::paragraphs;
use crate::hashing::sha256;

/// A package whose files have more licences than this is described by its source only.
const STATEMENTS_MAX: usize = 200;

/// Longer words are a licence's text, not its name.
const WORDS_BYTES_MAX: usize = 200;

/// The identifiers of SPDX's list that packages use most, and those that Debian's names become.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "BlueOak-1.0.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CDDL-1.1",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "FSFAP",
    "FTL",
    "GFDL-1.1-only",
    "GFDL-1.1-or-later",
    "GFDL-1.2-only",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "MIT",
    "MIT-0",
    "MPL-1.1",
    "MPL-2.0",
    "NCSA",
    "OFL-1.1",
    "OpenSSL",
    "PHP-3.01",
    "PSF-2.0",
    "PostgreSQL",
    "Python-2.0",
    "Ruby",
    "SSPL-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "ZPL-2.1",
    "Zlib",
    "curl",
    "libpng-2.0",
];

/// What Debian calls what SPDX calls otherwise.
const DEBIAN: &[(&str, &str)] = &[
    ("Apache-2", "Apache-2.0"),
    ("BSD-2-clause", "BSD-2-Clause"),
    ("BSD-3-clause", "BSD-3-Clause"),
    ("BSD-4-clause", "BSD-4-Clause"),
    ("CC0", "CC0-1.0"),
    ("Expat", "MIT"),
    ("PSF-2", "PSF-2.0"),
    ("zlib", "Zlib"),
];

/// The families of the FSF, whose names Debian shortens: `GPL-2+` is `GPL-2.0-or-later`.
const FSF: [&str; 4] = ["AGPL", "GFDL", "GPL", "LGPL"];

/// A licence as a package states it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Licence {
    /// An SPDX expression.
    pub expression: String,
    /// The references that it makes of its own, with the words that they stand for.
    pub references: BTreeMap<String, String>,
}

impl Licence {
    /// Takes what an ecosystem says to be an SPDX expression.
    pub(super) fn of_expression(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.len() > WORDS_BYTES_MAX || text.contains(char::is_control) {
            return None;
        }
        let mut licence = Self::empty();
        licence.expression = if is_expression(text) { text.to_owned() } else { licence.refer(text) };
        Some(licence)
    }

    /// Takes the short names of a machine-readable copyright file: all of them hold, each for some of the files.
    pub(super) fn of_copyright_file(text: &str) -> Option<Self> {
        let mut all = paragraphs(text);
        let header = all.next()?;
        let format = header.get("Format")?;
        if !format.contains("copyright-format") && !format.contains("dep5") {
            return None;
        }
        let stated = all.filter(|paragraph| paragraph.get("Files").is_some()).chain([header]);
        let lines = stated.filter_map(|paragraph| paragraph.get("License")?.lines().next());
        let statements: BTreeSet<&str> = lines
            .map(str::trim)
            .filter(|line| !line.is_empty() && line.len() <= WORDS_BYTES_MAX)
            .take(STATEMENTS_MAX)
            .collect();
        let mut licence = Self::empty();
        let mut terms: Vec<String> = Vec::new();
        for statement in &statements {
            let term = licence.debian(statement);
            if !terms.contains(&term) {
                terms.push(term);
            }
        }
        terms.sort();
        let several = terms.len() > 1;
        let wrap = |term: String| if several && term.contains(" OR ") { format!("({term})") } else { term };
        licence.expression = terms.into_iter().map(wrap).collect::<Vec<_>>().join(" AND ");
        (!licence.expression.is_empty()).then_some(licence)
    }

    const fn empty() -> Self {
        Self { expression: String::new(), references: BTreeMap::new() }
    }

    /// Reads Debian's `A or B and C`; what has commas or exceptions is taken as a whole.
    fn debian(&mut self, statement: &str) -> String {
        let names = || statement.split(" or ").flat_map(|part| part.split(" and "));
        if names().any(|name| !is_short_name(name.trim())) {
            return self.refer(statement);
        }
        let all = |part: &str, licence: &mut Self| -> String {
            let names: Vec<String> =
                part.split(" and ").map(|name| licence.debian_name(name.trim())).collect();
            names.join(" AND ")
        };
        let parts: Vec<String> = statement.split(" or ").map(|part| all(part, self)).collect();
        parts.join(" OR ")
    }

    fn debian_name(&mut self, name: &str) -> String {
        if let Some((_, spdx)) = DEBIAN.iter().find(|(debian, _)| *debian == name) {
            return (*spdx).to_owned();
        }
        if KNOWN.contains(&name) {
            return name.to_owned();
        }
        fsf(name).unwrap_or_else(|| self.refer(name))
    }

    /// Makes a reference for words that are on no list.
    fn refer(&mut self, words: &str) -> String {
        let plain: String = words
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
            .take(64)
            .collect();
        // What was changed may have become the same as another's.
        let mark =
            if plain == words { String::new() } else { format!("-{}", &sha256(words.as_bytes()).hex()[..8]) };
        let reference = format!("LicenseRef-{plain}{mark}");
        self.references.insert(reference.clone(), words.to_owned());
        reference
    }
}

fn is_short_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-_/~".contains(&byte))
}

fn fsf(name: &str) -> Option<String> {
    let (family, version) = name.split_once('-').filter(|(family, _)| FSF.contains(family))?;
    let (number, suffix) = match version.strip_suffix('+') {
        Some(number) => (number, "or-later"),
        None => (version, "only"),
    };
    let number = if number.contains('.') { number.to_owned() } else { format!("{number}.0") };
    Some(format!("{family}-{number}-{suffix}")).filter(|name| KNOWN.contains(&name.as_str()))
}

/// Whether a text is an expression of known identifiers, with its parentheses paired.
fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_name) = (0_usize, true);
    for word in spaced.split_whitespace() {
        match (word, wants_name) {
            ("(", true) => depth += 1,
            (")", false) if depth > 0 => depth -= 1,
            ("AND" | "OR", false) => wants_name = true,
            (name, true) if KNOWN.contains(&name) => wants_name = false,
            _ => return false,
        }
    }
    depth == 0 && !wants_name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_known_identifiers_stay_and_other_words_become_references() {
        for good in ["MIT", "(MIT OR Apache-2.0) AND ISC", "BSD-3-Clause"] {
            assert_eq!(Licence::of_expression(good).unwrap().expression, good);
        }
        for bad in ["BSD", "MIT AND", "(MIT", "MIT)", "MIT OR", "AND", "GPL"] {
            let licence = Licence::of_expression(bad).unwrap();
            assert!(licence.expression.starts_with("LicenseRef-"), "{}", licence.expression);
            assert_eq!(licence.references[&licence.expression], bad);
        }
        assert_eq!(Licence::of_expression(""), None);
        assert_eq!(Licence::of_expression(&"x".repeat(1000)), None);
    }

    #[test]
    fn a_copyright_file_gives_the_licences_of_all_its_files() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                    Files: *\nCopyright: x\nLicense: GPL-2+ or Artistic\n\n\
                    Files: a\nLicense: Expat\n text of it\n\n\
                    Files: b\nLicense: GPL-2+ with OpenSSL exception\n\n\
                    License: LGPL-2.1\n text that no file has\n";
        let licence = Licence::of_copyright_file(text).unwrap();
        let exception = licence.references.iter().find(|(_, words)| words.contains("exception")).unwrap().0;
        assert_eq!(
            licence.expression,
            format!("(GPL-2.0-or-later OR LicenseRef-Artistic) AND {exception} AND MIT")
        );
        assert_eq!(licence.references["LicenseRef-Artistic"], "Artistic");
        assert_eq!(Licence::of_copyright_file("This package was debianized by X.\nLicense: GPL\n"), None);
        assert_eq!(Licence::of_copyright_file(""), None);
    }

    #[test]
    fn debians_names_of_the_fsfs_licences_become_spdxs() {
        for (debian, spdx) in [
            ("GPL-2", "GPL-2.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("AGPL-3.0+", "AGPL-3.0-or-later"),
        ] {
            assert_eq!(fsf(debian).as_deref(), Some(spdx));
        }
        assert_eq!((fsf("GPL"), fsf("GPL-9"), fsf("XPL-2")), (None, None, None));
    }
}
