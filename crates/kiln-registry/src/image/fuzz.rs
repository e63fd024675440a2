//! Layers and documents of images, mutated.

use std::io::Cursor;

use ::fuzz::{Target, with_checksums};
use kiln_store::{Store, Tree};

use super::layer::Budget;
use super::*;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn layers() {
    // In memory: what is tried is not kept.
    let state = tempfile::tempdir_in("/dev/shm").unwrap();
    let store = Store::open(state.path()).unwrap();
    let lay = |bytes: Vec<u8>| {
        let batch = store.objects.batch();
        let size = bytes.len() as u64;
        let any = Digest::new([0; 32]);
        layer::lay(&mut Tree::new(), &batch, &mut Budget::default(), Cursor::new(bytes), size, any)
    };
    let words =
        ["../", "/", ".wh.", ".wh..wh..opq", "dev/", "ustar", "path=", "linkpath=", "size=", "00000000700"];
    let kinds = ["0", "1", "2", "3", "5", "6", "7", "x", "g", "L", "K", "S"];
    Target::new(CRATE, "layers").words(&words).words(&kinds).run(|bytes| {
        // As it came, and as a tar that somebody took the trouble to make.
        let said = lay(bytes.to_vec()).unwrap_err();
        let tar = with_checksums(bytes);
        let again = lay(zstd::encode_all(&tar[..], 1).unwrap()).unwrap_err();
        format!("{said:?} {again:?}")
    });
}

#[test]
fn documents() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = folder.path().join("saved.tar");
    std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let words =
        ["sha256:", "sha512:", "application/vnd.oci.image.index.v1+json", "null", "[]", "{}", "\\u0000"];
    let fields = ["\"manifests\":", "\"config\":", "\"layers\":", "\"subject\":", "\"size\":", "\"digest\":"];
    Target::new(CRATE, "documents").words(&words).words(&fields).run(|bytes| {
        let manifest = Manifest::parse(None, bytes).map(|manifest| manifest.media_type);
        let config = Config::parse(bytes, 1);
        std::fs::write(folder.path().join("index.json"), bytes).unwrap();
        let layout = Layout::new(folder.path()).find(Some(&"v1".parse().unwrap()));
        std::fs::write(&file, with_checksums(bytes)).unwrap();
        let saved = DockerArchive::open(&file, None).map(|saved| saved.digest());
        let answers = crate::client::fuzz::read(bytes);
        format!("{manifest:?} {config:?} {layout:?} {saved:?} {answers}")
    });
}
