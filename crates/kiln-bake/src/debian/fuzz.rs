//! Packages, the lists of their archive, and archives that ADD unpacks, mutated.

use ::fuzz::Target;
use kiln_store::Store;

use super::control::paragraphs;
use super::index::Index;
use super::release::Release;
use super::{deb, relation, version};

#[test]
fn packages() {
    // In memory: what is tried is not kept.
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(state.path()).unwrap();
    let file = state.path().join("package.deb");
    let words = [
        "!<arch>\n",
        "debian-binary   ",
        "control.tar",
        "data.tar",
        ".xz",
        ".zst",
        "`\n",
        "../",
        "\n\n",
        "\n ",
        "SHA256:\n",
    ];
    let fields = [
        "Package: a\n",
        "Version: 1:1.0-1\n",
        "Depends: ",
        "Provides: a (= 1)\n",
        " | ",
        " (>= 1~)",
        "Essential: yes\n",
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "packages").words(&words).words(&fields).run(|bytes| {
        let repaired = ::fuzz::with_checksums(bytes);
        std::fs::write(&file, &repaired).unwrap();
        let added = crate::stage::fuzz::unpack(&store, &repaired);
        let batch = store.objects.batch();
        let read = deb::read(&file, &batch).map(|deb| deb.files.len());
        let text = String::from_utf8_lossy(bytes).into_owned();
        let mut fields = 0;
        for paragraph in paragraphs(&text).take(50) {
            fields += paragraph.fields().count();
            for field in ["Depends", "Provides"] {
                fields += relation::groups(paragraph.get(field).unwrap_or_default()).count();
            }
        }
        let release = Release::parse(&text).map(|release| release.files.len());
        let index = Index::new(vec![text.clone(), text.clone()]);
        let (mut providers, mut versions) = (0, Vec::new());
        for package in index.iter().take(50) {
            providers += package.provides().map(|relation| index.providers(&relation).len()).sum::<usize>();
            versions.push(package.fields.get("Version").unwrap_or_default());
        }
        // An order that contradicts itself makes sorting panic.
        versions.sort_by(|a, b| version::compare(a, b));
        format!("{read:?} {added} {} {release:?} {}", fields.min(8), providers.min(8))
    });
}
