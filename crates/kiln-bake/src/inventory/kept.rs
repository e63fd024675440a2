//! Surveys as they are kept between bakes.
//!
//! A file is a line that says what it is of and what its bytes hash to, and the survey: numbers of four bytes, little end first, and
//! texts and paths with their lengths before them. It is a cache: what is torn, odd, too large or of another Kiln is as good as absent.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::Digest;
use kiln_store::TreePath;

use super::{Ecosystem, Licence, Omission, Package, Software, SourcePackage, Survey, System};
use crate::hashing::sha256;

/// Raised when the same tree comes to have other software, or what was looked at says less than [`Survey::holds_for`] needs: whenever
/// anything that reads files in this folder does something else, and when the form of these files changes. A survey that says
/// another number is not believed.
const SURVEY_VERSION: u32 = 1;

/// A Debian of 230 MB has 245 KB; one with more than this is looked through each time.
pub(crate) const KEPT_BYTES_MAX: u64 = 16 << 20;

impl Survey {
    /// Writes it as that of a tree; none where it is too large to be kept.
    pub(crate) fn to_bytes(&self, tree: &Digest) -> Option<Vec<u8>> {
        let body = self.body();
        let bytes = [head(tree, &body).as_bytes(), &body].concat();
        (bytes.len() as u64 <= KEPT_BYTES_MAX).then_some(bytes)
    }

    /// Reads what was written of a tree; none where it is anything else.
    pub(crate) fn from_bytes(tree: &Digest, bytes: &[u8]) -> Option<Self> {
        let at = bytes.iter().position(|byte| *byte == b'\n')?;
        let (start, body) = bytes.split_at(at + 1);
        if start != head(tree, body).as_bytes() {
            return None;
        }
        let mut left = Left(body);
        let survey = Self {
            software: Software {
                system: left.option(|left| Some(System { id: left.text()?, version: left.text()? }))?,
                packages: left.list(Left::package)?,
                omissions: left.list(|left| Some(Omission { path: left.path()?, reason: left.text()? }))?,
            },
            looked_at: left.paths()?,
        };
        left.0.is_empty().then_some(survey)
    }

    fn body(&self) -> Vec<u8> {
        let Self { software: Software { system, packages, omissions }, looked_at } = self;
        let mut body = Body::default();
        body.option(system.as_ref(), |body, System { id, version }| {
            body.bytes(id.as_bytes());
            body.bytes(version.as_bytes());
        });
        body.list(packages, Body::package);
        body.list(omissions, |body, Omission { path, reason }| {
            body.bytes(path.as_bytes());
            body.bytes(reason.as_bytes());
        });
        body.list(looked_at, |body, path| body.bytes(path.as_bytes()));
        body.0
    }
}

fn head(tree: &Digest, body: &[u8]) -> String {
    let (version, sum) = (env!("CARGO_PKG_VERSION"), sha256(body));
    format!("kiln.survey/{SURVEY_VERSION} {version} {tree} {sum}\n")
}

/// What is written.
#[derive(Debug, Default)]
struct Body(Vec<u8>);

impl Body {
    fn number(&mut self, number: usize) {
        // What is longer is not kept.
        self.0.extend(u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len());
        self.0.extend(bytes);
    }

    fn list<T>(
        &mut self,
        all: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
        one: impl Fn(&mut Self, T),
    ) {
        let all = all.into_iter();
        self.number(all.len());
        all.for_each(|it| one(self, it));
    }

    fn option<T>(&mut self, it: Option<T>, one: impl Fn(&mut Self, T)) {
        self.list(it, one);
    }

    fn text(&mut self, text: Option<&String>) {
        self.option(text, |body, text| body.bytes(text.as_bytes()));
    }

    fn package(&mut self, package: &Package) {
        let Package { ecosystem, name, version, arch, source, supplier, licence, purl, found } = package;
        for text in [ecosystem.as_str(), name, version] {
            self.bytes(text.as_bytes());
        }
        self.text(arch.as_ref());
        self.option(source.as_ref(), |body, SourcePackage { name, version }| {
            body.bytes(name.as_bytes());
            body.bytes(version.as_bytes());
        });
        self.text(supplier.as_ref());
        self.option(licence.as_ref(), |body, Licence { expression, references }| {
            body.bytes(expression.as_bytes());
            body.list(references, |body, (reference, words)| {
                body.bytes(reference.as_bytes());
                body.bytes(words.as_bytes());
            });
        });
        self.text(purl.as_ref());
        self.list(found, |body, path| body.bytes(path.as_bytes()));
    }
}

/// What is still to be read.
#[derive(Debug)]
struct Left<'a>(&'a [u8]);

impl<'a> Left<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    fn number(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(count)
    }

    fn str(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn text(&mut self) -> Option<String> {
        self.str().map(str::to_owned)
    }

    fn path(&mut self) -> Option<TreePath> {
        TreePath::parse(self.bytes()?).ok()
    }

    fn paths(&mut self) -> Option<BTreeSet<TreePath>> {
        // In order, so that the set is built as a whole.
        self.list(Self::path).map(BTreeSet::from_iter)
    }

    /// A number that is too large ends with the bytes: what there is no room for was never there.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        (0..self.number()?).map(|_| one(self)).collect()
    }

    fn option<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.number()? {
            0 => Some(None),
            1 => one(self).map(Some),
            _ => None,
        }
    }

    fn package(&mut self) -> Option<Package> {
        let ecosystem = self.str()?;
        Some(Package {
            ecosystem: Ecosystem::ALL.into_iter().find(|it| it.as_str() == ecosystem)?,
            name: self.text()?,
            version: self.text()?,
            arch: self.option(Self::text)?,
            source: self.option(|left| Some(SourcePackage { name: left.text()?, version: left.text()? }))?,
            supplier: self.option(Self::text)?,
            licence: self.option(Self::licence)?,
            purl: self.option(Self::text)?,
            found: self.paths()?,
        })
    }

    fn licence(&mut self) -> Option<Licence> {
        let expression = self.text()?;
        let references = self.list(|left| Some((left.text()?, left.text()?)))?;
        Some(Licence { expression, references: BTreeMap::from_iter(references) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{ProptestConfig, any, prop, proptest};

    use super::*;
    use crate::inventory::tests::{everything, stored};

    /// The survey of these files.
    fn surveyed(files: &[(&str, u16, Vec<u8>)]) -> Survey {
        let (_folder, store, tree) = stored(files);
        Survey::of(&store.objects, &tree).unwrap()
    }

    /// One of everything, and one of everything that is torn.
    fn surveys() -> [Survey; 2] {
        let torn = everything().into_iter().map(|(path, mode, mut bytes)| {
            bytes.truncate(bytes.len() / 2);
            (path, mode, bytes)
        });
        [surveyed(&everything()), surveyed(&torn.collect::<Vec<_>>())]
    }

    /// Who changes what a parser finds is told here to raise the version: what was found before is on disks, and would be believed.
    #[test]
    fn another_version_comes_with_whatever_finds_something_else() {
        let found: Vec<u8> = surveys().iter().flat_map(Survey::body).collect();
        let pinned = (1, "sha256:24624b3913fc46e9bfe59fdb5a9e5184f1bf320c356ac1b9727ea68463c879a6");
        let now = sha256(&found).to_string();
        assert_eq!((SURVEY_VERSION, now.as_str()), pinned, "raise SURVEY_VERSION, and pin both anew");
    }

    #[test]
    fn a_survey_reads_back_what_it_wrote_of_this_tree_by_this_kiln_and_nothing_else_does() {
        let tree = sha256(b"tree");
        for survey in surveys() {
            let bytes = survey.to_bytes(&tree).unwrap();
            assert_eq!(Survey::from_bytes(&tree, &bytes), Some(survey));
            assert_eq!(Survey::from_bytes(&sha256(b"other"), &bytes), None);
            assert_eq!(Survey::from_bytes(&tree, &[&bytes[..], b"x"].concat()), None);
            for at in 0..bytes.len() {
                assert_eq!(Survey::from_bytes(&tree, &bytes[..at]), None, "torn at {at}");
            }
            let head = bytes.iter().position(|byte| *byte == b'\n').unwrap();
            let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
            for (old, new) in [
                (format!("survey/{SURVEY_VERSION} "), format!("survey/{} ", SURVEY_VERSION + 1)),
                (format!(" {} ", env!("CARGO_PKG_VERSION")), " 0.0.0 ".to_owned()),
            ] {
                let other = [text.replace(&old, &new).as_bytes(), &bytes[head..]].concat();
                assert_ne!(other, bytes);
                assert_eq!(Survey::from_bytes(&tree, &other), None, "{new}");
            }
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_kept() {
        let mut survey = Survey::default();
        survey.looked_at.insert(TreePath::parse(b"a/\xff").unwrap());
        let tree = sha256(b"tree");
        assert_eq!(Survey::from_bytes(&tree, &survey.to_bytes(&tree).unwrap()), Some(survey));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let mut survey = Survey::default();
        let reason = "x".repeat(KEPT_BYTES_MAX as usize);
        survey.software.omissions.push(Omission { path: TreePath::root(), reason });
        assert_eq!(survey.to_bytes(&sha256(b"tree")), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn bytes_that_nobody_wrote_are_no_survey_even_if_their_sum_is_right(
            at in any::<prop::sample::Index>(), put in prop::collection::vec(any::<u8>(), 0..9), cut in 0..9_usize
        ) {
            let (tree, mut survey) = (sha256(b"tree"), Survey::default());
            let licence = Some(Licence { expression: "MIT".into(), references: [("a".into(), "b".into())].into() });
            let package = Package::new(Ecosystem::Npm, "a", "1", None);
            survey.software.packages.push(Package { licence, ..package });
            survey.looked_at.insert(TreePath::parse("a").unwrap());
            let mut body = survey.body();
            let at = at.index(body.len());
            body.splice(at..body.len().min(at + cut), put);
            let bytes = [head(&tree, &body).as_bytes(), &body].concat();
            // It may have become another one; then it is written the same.
            if let Some(read) = Survey::from_bytes(&tree, &bytes) {
                let again = read.to_bytes(&tree).unwrap();
                assert_eq!(Survey::from_bytes(&tree, &again), Some(read));
            }
        }
    }
}
