//! Looking through a whole tree, and telling whether another one would give the same.

use std::collections::BTreeSet;

use kiln_store::{Entry, Kind, Objects, ReadError, Tree, TreePath};

use super::scan::Scan;
use super::{Software, cargo, debian, elf, java, npm, python};

/// The software of a tree, with where it was looked for.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Survey {
    pub(crate) software: Software,
    /// Files that were read, and places where there was none.
    pub(crate) looked_at: BTreeSet<TreePath>,
}

type Reader = fn(&mut Scan<'_>, &TreePath) -> Result<(), ReadError>;

impl Survey {
    /// Reads the files of a tree that matter, and verifies them on the way.
    pub(crate) fn of(objects: &Objects, tree: &Tree) -> Result<Self, ReadError> {
        let mut scan = Scan::new(objects, tree);
        let system = debian::system(&mut scan)?;
        debian::read(&mut scan, system.as_ref())?;
        for (path, entry) in tree.iter() {
            if let Some(read) = reader(path, entry) {
                read(&mut scan, path)?;
            }
        }
        let (packages, omissions, looked_at) = scan.finish();
        Ok(Self { software: Software { system, packages, omissions }, looked_at })
    }

    /// Whether a tree that was made of the surveyed one has the same software for sure: nothing that was looked at is another, and
    /// nothing new is to be looked at. Then this is its survey, too.
    pub(crate) fn holds_for(&self, surveyed: &Tree, made: &Tree) -> bool {
        let changes = surveyed.changes(made);
        let gone = changes.gone.iter().map(|path| (*path, None));
        let put = changes.put.iter().map(|(path, entry)| (*path, Some(*entry)));
        gone.chain(put).all(|(path, now)| !self.depends_on(path, surveyed.get(path), now))
    }

    /// Whether a survey of a tree could hold for another: no, where something new is to be looked at whatever was looked at before.
    pub(crate) fn may_hold(surveyed: &Tree, made: &Tree) -> bool {
        Self::default().holds_for(surveyed, made)
    }

    fn depends_on(&self, path: &TreePath, before: Option<&Entry>, now: Option<&Entry>) -> bool {
        let both = || before.into_iter().chain(now);
        // What is in a folder that goes or comes is told by itself.
        if both().all(Entry::is_dir) {
            return false;
        }
        // Any link may be on the way to something.
        both().any(|entry| matches!(entry.kind, Kind::Symlink { .. }))
            || now.is_some_and(|entry| reader(path, entry).is_some())
            || path.is_within(&debian::constant(debian::STATUS_FOLDER))
            || self.leads_to_what_was_looked_at(path)
    }

    /// Whether a place that was looked at is this path or below it. In order, what is below `a` comes after `a-b`.
    fn leads_to_what_was_looked_at(&self, path: &TreePath) -> bool {
        let mut alike = self
            .looked_at
            .range::<TreePath, _>(path..)
            .take_while(|next| next.as_bytes().starts_with(path.as_bytes()));
        alike.any(|next| next.is_within(path))
    }
}

/// Who reads a file that its name, or its mode, says to be of one of the ecosystems.
fn reader(path: &TreePath, entry: &Entry) -> Option<Reader> {
    let Kind::File { size, .. } = entry.kind else { return None };
    let (name, mode) = (path.name(), entry.meta.mode);
    let is_program = || mode & 0o111 != 0 || name.windows(3).any(|part| part == b".so");
    let reader: Reader = match () {
        () if python::is_metadata(path) => python::read,
        () if npm::is_manifest(path) => npm::read_manifest,
        () if npm::is_lock(path) => npm::read_lock,
        () if name == b"Cargo.lock" => cargo::read_lock,
        () if java::is_archive(name) => java::read,
        () if size >= elf::SMALLEST_BYTES && is_program() => elf::read,
        () => return None,
    };
    Some(reader)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use kiln_store::{Meta, Store};
    use proptest::prelude::{ProptestConfig, prop, proptest};
    use proptest::strategy::Strategy;

    use super::*;
    use crate::hashing::sha256;
    use crate::inventory::tests::everything;

    /// A store with what is put into trees here.
    struct Ground {
        _folder: tempfile::TempDir,
        store: Store,
        /// Software of every kind, and some links.
        tree: Tree,
        /// Contents of every kind.
        files: Vec<Entry>,
    }

    impl Ground {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            let (batch, mut tree) = (store.objects.batch(), Tree::new());
            let store_file = |mode: u16, bytes: &[u8]| {
                let stored = batch.put_bytes(bytes).unwrap();
                Entry::file(mode, stored.digest, stored.size)
            };
            for (path, mode, bytes) in everything() {
                put(&mut tree, path, store_file(mode, &bytes));
            }
            put(&mut tree, "srv/notes", store_file(0o644, b"notes"));
            put(&mut tree, "usr/share/doc/shared/copyright", store_file(0o644, b"License: MIT\n"));
            link(&mut tree, "usr/share/doc/linked", "shared");
            link(&mut tree, "srv/link", "../etc");
            let mut files: Vec<Entry> =
                everything().iter().map(|(_, _, bytes)| store_file(0o755, bytes)).collect();
            files.extend([store_file(0o644, b"other"), store_file(0o755, &[0; 5000])]);
            batch.commit().unwrap();
            Self { _folder: folder, store, tree, files }
        }

        fn survey(&self) -> Survey {
            Survey::of(&self.store.objects, &self.tree).unwrap()
        }
    }

    /// Where something else is on the way, nothing is put.
    fn put(tree: &mut Tree, path: &str, entry: Entry) {
        let path = TreePath::parse(path).unwrap();
        let folder = Meta { mode: 0o755, ..Meta::default() };
        if tree.make_dirs(&path.parent().unwrap(), &folder).is_ok() {
            let _ = tree.insert(&path, entry);
        }
    }

    fn link(tree: &mut Tree, path: &str, target: &str) {
        let kind = Kind::Symlink { target: target.into() };
        put(tree, path, Entry { meta: Meta { mode: 0o777, ..Meta::default() }, kind });
    }

    #[test]
    fn what_has_nothing_to_do_with_software_changes_none() {
        let ground = Ground::new();
        let (survey, before) = (ground.survey(), &ground.tree);
        let [.., other, program] = &ground.files[..] else { unreachable!("there are at least two") };
        let mut after = before.clone();
        for path in ["srv/sums", "srv/notes", "var/new/deep/file"] {
            put(&mut after, path, other.clone());
        }
        after.set_meta(&TreePath::parse("etc").unwrap(), Meta { mode: 0o700, ..Meta::default() }).unwrap();
        assert!(survey.holds_for(before, &after));
        for (path, entry) in [
            ("var/lib/dpkg/status", other),
            ("var/lib/dpkg/status.d/new", other),
            ("usr/share/doc/bash/copyright", other),
            ("etc/os-release", other),
            ("srv/Cargo.lock", other),
            ("srv/program", program),
        ] {
            let mut after = before.clone();
            put(&mut after, path, entry.clone());
            assert!(!survey.holds_for(before, &after), "{path}");
        }
    }

    fn places() -> impl Strategy<Value = String> {
        let paths = everything().into_iter().map(|(path, ..)| path.to_owned());
        let mut places: Vec<String> = paths.collect();
        let folders: Vec<String> = places
            .iter()
            .filter_map(|path| path.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
            .collect();
        places.extend(folders);
        places.extend(
            [
                "usr/share/doc/linked",
                "usr/share/doc/shared",
                "srv/link",
                "srv/notes",
                "srv/sums",
                "etc",
                "usr",
            ]
            .map(str::to_owned),
        );
        prop::sample::select(places)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_kept_survey_that_holds_is_that_of_the_new_tree(
            edits in prop::collection::vec((0..5, places(), places(), 0..everything().len()), 1..4)
        ) {
            static GROUND: LazyLock<Ground> = LazyLock::new(Ground::new);
            let Ground { store, tree: before, files, .. } = &*GROUND;
            let (survey, mut after) = (GROUND.survey(), before.clone());
            for (what, path, other, source) in edits {
                let at = TreePath::parse(&path).unwrap();
                match what {
                    0 => drop(after.remove(&at)),
                    1 => link(&mut after, &path, &format!("/{other}")),
                    2 => put(&mut after, &path, files[source].clone()),
                    3 => put(&mut after, &format!("{path}/new"), files[source].clone()),
                    _ => drop(after.link(&at, &TreePath::parse(&other).unwrap())),
                }
            }
            let tree = sha256(b"before");
            let survey = Survey::from_bytes(&tree, &survey.to_bytes(&tree).unwrap()).unwrap();
            if survey.holds_for(before, &after) {
                assert!(Survey::may_hold(before, &after));
                assert_eq!(survey, Survey::of(&store.objects, &after).unwrap());
            }
        }
    }
}
