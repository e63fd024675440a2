//! Packages into one tree, as `dpkg --unpack` would leave them.

use std::collections::{BTreeMap, BTreeSet};

use kiln_store::tree::{ResolveError, TreeError};
use kiln_store::{Entry, Kind, Meta, Tree, TreePath};

use super::control::Paragraph;
use super::deb::{Deb, DebContent};
use super::index::Package;
use super::relation::{Relation, groups, relations};

/// The folders that are links into /usr since Debian 12; where base-files does not bring the links, the installer makes
/// them, as debootstrap does.
const MERGED_FOLDERS: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// A package that was read.
#[derive(Debug)]
pub(crate) struct Unpacked {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its control paragraph.
    pub(crate) control: String,
    /// What is in it.
    pub(crate) deb: Deb,
}

/// Why packages can't be laid into one tree.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Two packages bring the same file, and neither replaces the other.
    #[error("`{package}` and `{other}` both bring {path}")]
    Overwrite {
        /// The package that came later.
        package: String,
        /// The one before it.
        other: String,
        /// The file.
        path: TreePath,
    },
    /// A package's file has no place.
    #[error("`{package}` brings {path}, for which there is no place")]
    NoPlace {
        /// The package.
        package: String,
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Unpacked {
    pub(crate) fn paragraph(&self) -> Paragraph<'_> {
        Paragraph::new(&self.control)
    }

    fn package(&self) -> Package<'_> {
        Package { name: &self.name, version: &self.version, archive: 0, fields: self.paragraph() }
    }

    fn replaces(&self, other: &Self) -> bool {
        let field = self.paragraph().get("Replaces").unwrap_or("");
        relations(field).any(|relation| other.package().satisfies(&relation))
    }
}

/// Orders packages, which are given in the order of names, so that what a package needs comes before it where the dependencies allow: first along Pre-Depends,
/// which have no circles, then along Depends, whose circles are cut at the first package in the order of names.
pub(crate) fn order(packages: &[Unpacked]) -> Vec<usize> {
    let mut ordered = Vec::with_capacity(packages.len());
    let mut seen = BTreeSet::new();
    // base-files brings the folders and their modes, and on newer suites the links into /usr.
    let first = packages.iter().position(|package| package.name == "base-files");
    if let Some(first) = first {
        seen.insert(first);
        ordered.push(first);
    }
    for start in 0..packages.len() {
        visit(packages, start, &mut seen, &mut ordered);
    }
    ordered
}

/// Depth-first without recursion: a chain of dependencies may be as long as the list of packages.
fn visit(packages: &[Unpacked], start: usize, seen: &mut BTreeSet<usize>, ordered: &mut Vec<usize>) {
    if !seen.insert(start) {
        return;
    }
    let mut stack = vec![(start, needs(packages, start).into_iter())];
    while let Some((at, rest)) = stack.last_mut() {
        match rest.next() {
            Some(next) if seen.insert(next) => stack.push((next, needs(packages, next).into_iter())),
            Some(_) => {}
            None => {
                ordered.push(*at);
                stack.pop();
            }
        }
    }
}

fn needs(packages: &[Unpacked], of: usize) -> Vec<usize> {
    let paragraph = packages[of].paragraph();
    let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|field| paragraph.get(field));
    let named = |relation: &Relation<'_>| {
        let found = packages.binary_search_by(|one| one.name.as_str().cmp(relation.name)).ok();
        found.filter(|&index| relation.accepts(&packages[index].version))
    };
    fields
        .flat_map(groups)
        .filter_map(|group| {
            let real = group.iter().find_map(named);
            real.or_else(|| {
                packages.iter().position(|one| group.iter().any(|relation| one.package().satisfies(relation)))
            })
        })
        .collect()
}

/// Returns the packages that must work before anything else does: the Essential ones with all that they need.
pub(crate) fn essential_closure(packages: &[Unpacked]) -> BTreeSet<usize> {
    let mut closure = BTreeSet::new();
    let mut queue: Vec<_> = (0..packages.len())
        .filter(|&index| packages[index].paragraph().get("Essential") == Some("yes"))
        .collect();
    while let Some(next) = queue.pop() {
        if closure.insert(next) {
            queue.extend(needs(packages, next));
        }
    }
    closure
}

/// Lays packages into a new tree in the given order.
pub(crate) fn lay(packages: &[Unpacked], order: &[usize]) -> Result<Tree, UnpackError> {
    let mut laying = Laying { packages, tree: Tree::new(), owners: BTreeMap::new(), places: BTreeMap::new() };
    laying.merge_usr(order);
    for &index in order {
        laying.lay(index)?;
    }
    Ok(laying.tree)
}

struct Laying<'a> {
    packages: &'a [Unpacked],
    tree: Tree,
    /// Which package brought what is not a folder.
    owners: BTreeMap<TreePath, usize>,
    /// Where a package's folder really is: each is looked up once per package, not once per file.
    places: BTreeMap<TreePath, TreePath>,
}

impl Laying<'_> {
    fn merge_usr(&mut self, order: &[usize]) {
        let path = |text: &str| TreePath::parse(text).expect("a constant path is valid");
        let brought: BTreeSet<_> = order
            .iter()
            .filter(|&&index| self.packages[index].name == "base-files")
            .flat_map(|&index| &self.packages[index].deb.files)
            .filter(|file| {
                matches!(&file.content, DebContent::Entry(Entry { kind: Kind::Symlink { .. }, .. }))
            })
            .map(|file| file.path.clone())
            .collect();
        if brought.contains(&path("bin")) {
            return;
        }
        let mut put = |at: &str, entry| {
            self.tree
                .insert(&path(at), entry)
                .expect("these paths are valid and their folders are made first");
        };
        put("usr", Entry::dir(0o755));
        for folder in MERGED_FOLDERS {
            put(&format!("usr/{folder}"), Entry::dir(0o755));
            put(folder, Entry::symlink(format!("usr/{folder}")));
        }
    }

    fn lay(&mut self, index: usize) -> Result<(), UnpackError> {
        self.places.clear();
        let packages = self.packages;
        let package = &packages[index];
        for file in &package.deb.files {
            let no_place = |source: Box<dyn std::error::Error + Send + Sync>| UnpackError::NoPlace {
                package: package.name.clone(),
                path: file.path.clone(),
                source,
            };
            if file.path.is_root() {
                continue;
            }
            let place = self.place(&file.path).map_err(|error| no_place(error.into()))?;
            let entry = match &file.content {
                DebContent::HardLink(target) => {
                    let target = self.place(target).map_err(|error| no_place(error.into()))?;
                    if self.may_write(&place, index)? {
                        self.tree.link(&place, &target).map_err(|error| no_place(error.into()))?;
                        self.owners.insert(place, index);
                    }
                    continue;
                }
                DebContent::Entry(entry) => entry,
            };
            let done = if entry.is_dir() {
                self.lay_folder(&place, entry)
            } else if self.may_write(&place, index)? {
                self.owners.insert(place.clone(), index);
                self.tree.insert(&place, entry.clone())
            } else {
                Ok(())
            };
            done.map_err(|error| no_place(error.into()))?;
        }
        Ok(())
    }

    /// Follows the links of folders on the way, as dpkg does: what a package brings in /lib lands in /usr/lib.
    fn place(&mut self, path: &TreePath) -> Result<TreePath, ResolveError> {
        let folder = path.parent().unwrap_or_default();
        let real = match self.places.get(&folder) {
            Some(real) => real.clone(),
            None => {
                let real = self.resolve_folder(&folder)?;
                self.places.insert(folder, real.clone());
                real
            }
        };
        Ok(real.join(path.name())?)
    }

    fn resolve_folder(&mut self, folder: &TreePath) -> Result<TreePath, ResolveError> {
        match self.tree.resolve(folder, true) {
            Ok(real) => Ok(real),
            // A package need not list every folder on the way; its parent is looked up first, so this ends at the root.
            Err(ResolveError::Missing(_)) if !folder.is_root() => {
                let parent = self.resolve_folder(&folder.parent().unwrap_or_default())?;
                Ok(parent.join(folder.name())?)
            }
            Err(error) => Err(error),
        }
    }

    fn lay_folder(&mut self, place: &TreePath, entry: &Entry) -> Result<(), TreeError> {
        let is_folder = |path: &TreePath| self.tree.get(path).is_some_and(Entry::is_dir);
        // dpkg keeps a folder that is there with its mode and owner, and a link to one.
        if self.tree.resolve(place, true).is_ok_and(|real| is_folder(&real)) {
            return Ok(());
        }
        self.make_parent(place)?;
        self.tree.insert(place, entry.clone())
    }

    fn make_parent(&mut self, place: &TreePath) -> Result<(), TreeError> {
        let parent = place.parent().unwrap_or_default();
        self.tree.make_dirs(&parent, &Meta { mode: 0o755, ..Meta::default() })
    }

    /// Tells whether a package's file goes to a path: yes on a free one, or over a package that it replaces.
    fn may_write(&mut self, place: &TreePath, index: usize) -> Result<bool, UnpackError> {
        let package = &self.packages[index];
        if let Some(&owner) = self.owners.get(place) {
            let other = &self.packages[owner];
            if owner != index && !package.replaces(other) {
                if other.replaces(package) {
                    return Ok(false);
                }
                return Err(UnpackError::Overwrite {
                    package: package.name.clone(),
                    other: other.name.clone(),
                    path: place.clone(),
                });
            }
        }
        self.make_parent(place).map_err(|error| UnpackError::NoPlace {
            package: package.name.clone(),
            path: place.clone(),
            source: error.into(),
        })?;
        Ok(true)
    }
}
