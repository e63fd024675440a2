//! dpkg's database of what is unpacked, written as dpkg would have.
//!
//! Source: dpkg's `lib/dpkg/dump.c`, `infodb-format.c`, `trigdeferred.l`, and deb-triggers(5).

use std::collections::BTreeMap;

use kiln_store::tree::TreeError;
use kiln_store::{Batch, Entry, Meta, PutError, Tree, TreePath};

use super::unpack::Unpacked;

/// The folder of the database.
const ADMIN: &str = "var/lib/dpkg";

/// Why the database can't be written.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// A file of it can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// A package put something else in its place.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// Returns the status of one package, unpacked but not configured.
pub(crate) fn status(package: &Unpacked) -> String {
    let mut text = String::new();
    for (name, value) in package.paragraph().fields() {
        // dpkg writes these two itself.
        if name.eq_ignore_ascii_case("Status") || name.eq_ignore_ascii_case("Conffiles") {
            continue;
        }
        text.push_str(&format!("{name}: {value}\n"));
        if name.eq_ignore_ascii_case("Package") {
            text.push_str("Status: install ok unpacked\n");
        }
    }
    if !package.deb.conffiles.is_empty() {
        // The hash says that the package's own file is in place: configuring leaves it as it is, and `dpkg --verify` knows it.
        text.push_str("Conffiles:\n");
        for (path, md5) in &package.deb.conffiles {
            text.push_str(&format!(" {path} {md5}\n"));
        }
    }
    text.push('\n');
    text
}

/// Returns the name under which dpkg keeps a package's control files.
pub(crate) fn info_name(package: &Unpacked) -> String {
    let paragraph = package.paragraph();
    match (paragraph.get("Multi-Arch"), paragraph.get("Architecture")) {
        (Some("same"), Some(arch)) => format!("{}:{arch}", package.name),
        _ => package.name.clone(),
    }
}

/// Writes the database of `packages` into the tree; the status of those that `listed` leaves out is written later.
pub(crate) fn write(
    tree: &mut Tree,
    objects: &Batch,
    packages: &[Unpacked],
    listed: impl Fn(usize) -> bool,
) -> Result<(), DatabaseError> {
    let mut files = Files { tree, objects };
    let mut all = String::new();
    let mut triggers: BTreeMap<String, String> = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        if listed(index) {
            all.push_str(&status(package));
        }
        files.write_info(package)?;
        add_interests(package, &mut triggers);
    }
    files.put("status", 0o644, all.as_bytes())?;
    files.put("available", 0o644, b"")?;
    files.put("diversions", 0o644, b"")?;
    files.put("statoverride", 0o644, b"")?;
    files.put("info/format", 0o644, b"1\n")?;
    files.put("triggers/Unincorp", 0o644, b"")?;
    for (name, text) in triggers {
        files.put(&format!("triggers/{name}"), 0o644, text.as_bytes())?;
    }
    let updates = TreePath::parse(format!("{ADMIN}/updates")).expect("a constant path is valid");
    files.tree.make_dirs(&updates, &Meta { mode: 0o755, ..Meta::default() })?;
    Ok(())
}

struct Files<'a> {
    tree: &'a mut Tree,
    objects: &'a Batch,
}

impl Files<'_> {
    fn write_info(&mut self, package: &Unpacked) -> Result<(), DatabaseError> {
        let name = info_name(package);
        let mut list = b"/.\n".to_vec();
        for file in package.deb.files.iter().filter(|file| !file.path.is_root()) {
            list.push(b'/');
            list.extend_from_slice(file.path.as_bytes());
            list.push(b'\n');
        }
        self.put(&format!("info/{name}.list"), 0o644, &list)?;
        for (kind, bytes) in package.deb.control.iter().filter(|(kind, _)| *kind != "control") {
            let script = matches!(kind.as_str(), "preinst" | "postinst" | "prerm" | "postrm" | "config");
            self.put(&format!("info/{name}.{kind}"), if script { 0o755 } else { 0o644 }, bytes)?;
        }
        Ok(())
    }

    fn put(&mut self, path: &str, mode: u16, bytes: &[u8]) -> Result<(), DatabaseError> {
        let path = TreePath::parse(format!("{ADMIN}/{path}"))
            .map_err(|error| TreeError::Invalid { path: TreePath::root(), reason: error.to_string() })?;
        let stored = self.objects.put_bytes(bytes)?;
        self.tree.make_dirs(&path.parent().unwrap_or_default(), &Meta { mode: 0o755, ..Meta::default() })?;
        Ok(self.tree.insert(&path, Entry::file(mode, stored.digest, stored.size))?)
    }
}

/// Records which package wants to hear of what: paths in one file, names in a file each.
fn add_interests(package: &Unpacked, triggers: &mut BTreeMap<String, String>) {
    let text = package.deb.control.get("triggers").map(Vec::as_slice).unwrap_or_default();
    for line in String::from_utf8_lossy(text).lines() {
        let line = line.split('#').next().unwrap_or("");
        let mut words = line.split_whitespace();
        let (Some(directive), Some(name)) = (words.next(), words.next()) else { continue };
        let suffix = match directive {
            "interest" | "interest-await" => "",
            "interest-noawait" => "/noawait",
            _ => continue,
        };
        let who = format!("{}{suffix}", info_name(package));
        if name.starts_with('/') {
            triggers.entry("File".into()).or_default().push_str(&format!("{name} {who}\n"));
        } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+:".contains(&byte)) {
            triggers.entry(name.into()).or_default().push_str(&format!("{who}\n"));
        }
    }
}
