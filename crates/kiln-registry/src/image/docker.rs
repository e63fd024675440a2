//! An image in one file, as `docker save` writes it and `docker load` reads it.
//!
//! Source: Docker's image specification 1.2, "Combined Image JSON + Filesystem Changeset Format". Layers in it are plain tars, and
//! there is no manifest by digest; so an image that comes in gets one, and the same file always gives the same one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use kiln_model::Digest;
use kiln_store::Store;
use serde::Deserialize;
use serde_json::json;

use super::archive::{Archive, ArchiveError};
use super::layer::decompress;
use super::{ImageError, Origin, copy_exactly, sha256};
use crate::client::ImageReference;
use crate::digest::{Algorithm, ContentDigest, Hasher};
use crate::manifest::{Manifest, OCI_MANIFEST, Target};
use crate::name::Reference;

/// Three for each layer of each image; the largest archives have some hundred images.
const ENTRIES_MAX: usize = 100_000;

/// The list of images; a line for each layer.
const LIST_BYTES_MAX: u64 = 4 << 20;

/// Links from one layer to an equal one are one step long.
const LINKS_MAX: usize = 8;

/// A file of images can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DockerArchiveError {
    /// The file system refused.
    #[error("{} can't be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not a whole tar.
    #[error("{} can't be read", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: ArchiveError,
    },
    /// It is not such a file.
    #[error("{} is not what `docker save` writes: {reason}", path.display())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// It does not have the image.
    #[error("{} has no image {wanted}; it has {found}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
}

/// An image in a file of images.
#[derive(Debug)]
pub struct DockerArchive {
    path: PathBuf,
    manifest: Vec<u8>,
    /// Where config and layers are in the file.
    parts: BTreeMap<ContentDigest, Part>,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    offset: u64,
    size: u64,
}

#[derive(Debug)]
enum Found {
    Part(Part),
    Link(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryWire {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl DockerArchive {
    /// Finds an image by its name in a file, or the only one there is, and hashes its parts.
    ///
    /// # Errors
    /// See [`DockerArchiveError`].
    pub fn open(path: &Path, name: Option<&str>) -> Result<Self, DockerArchiveError> {
        let not = |reason: String| DockerArchiveError::NotAnArchive { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(at(path))?;
        let found = contents(path, &file)?;
        let list = part(&found, "manifest.json").filter(|list| list.size <= LIST_BYTES_MAX);
        let list = list.ok_or_else(|| not("it has no manifest.json".into()))?;
        let list = read(&mut file, list).map_err(at(path))?;
        let list: Vec<EntryWire> = serde_json::from_slice(&list)
            .map_err(|_| not("its manifest.json is not a list of images".into()))?;
        let entry = choose(path, &list, name)?;
        let mut parts = BTreeMap::new();
        let mut add = |name: &str| -> Result<serde_json::Value, DockerArchiveError> {
            let place =
                part(&found, name).ok_or_else(|| not(format!("it lacks `{}`", name.escape_debug())))?;
            let (digest, kind) = hash(&mut file, place).map_err(at(path))?;
            let descriptor = json!({ "digest": digest.to_string(), "mediaType": kind, "size": place.size });
            parts.insert(digest, place);
            Ok(descriptor)
        };
        let mut config = add(&entry.config)?;
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers = entry.layers.iter().map(|layer| add(layer)).collect::<Result<Vec<_>, _>>()?;
        let manifest =
            json!({ "config": config, "layers": layers, "mediaType": OCI_MANIFEST, "schemaVersion": 2 });
        Ok(Self { path: path.to_owned(), manifest: manifest.to_string().into_bytes(), parts })
    }

    /// The digest of the manifest that the image gets.
    pub fn digest(&self) -> ContentDigest {
        ContentDigest::of(Algorithm::Sha256, &self.manifest)
    }

    /// Writes an image of the store into a new file, with a name for whoever loads it.
    ///
    /// # Errors
    /// See [`ImageError`]; there is no file, or it is as it was.
    pub fn write(
        store: &Store,
        manifest: &Digest,
        path: &Path,
        name: Option<&str>,
    ) -> Result<(), ImageError> {
        let parsed = Manifest::parse(None, &store.blobs.read_verified(manifest)?)?;
        let (config, layers) = parsed.blobs.split_first().expect("a manifest has a config");
        let mut staged = path.as_os_str().to_owned();
        staged.push(".part");
        let staged = PathBuf::from(staged);
        let written = Self::fill(store, config, layers, &staged, name);
        let named = written.and_then(|()| Ok(fs::rename(&staged, path).map_err(at(path))?));
        if named.is_err() {
            // What can't be removed is said by its name.
            let _ = fs::remove_file(&staged);
        }
        named
    }

    fn fill(
        store: &Store,
        config: &Target,
        layers: &[Target],
        path: &Path,
        name: Option<&str>,
    ) -> Result<(), ImageError> {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(at(path))?);
        let mut put = |name: &str, reader: &mut dyn Read| append(&mut out, name, reader).map_err(at(path));
        let digest = sha256(&config.digest)?;
        let config_name = format!("{}.json", digest.hex());
        put(&config_name, &mut &store.blobs.read_verified(&digest)?[..])?;
        let mut names = Vec::new();
        for layer in layers {
            let digest = sha256(&layer.digest)?;
            let name = format!("{}.tar", digest.hex());
            // A layer may come twice; its file does not.
            if !names.contains(&name) {
                let blob = store.blobs.open_verified(&digest)?;
                let mut plain = decompress(blob).map_err(|source| ImageError::Layer { digest, source })?;
                put(&name, &mut plain)?;
            }
            names.push(name);
        }
        let tags: Vec<&str> = name.into_iter().collect();
        let list = json!([{ "Config": config_name, "Layers": names, "RepoTags": tags }]);
        put("manifest.json", &mut list.to_string().as_bytes())?;
        let done = out.write_all(&[0; 1024]).and_then(|()| out.flush());
        done.and_then(|()| out.get_ref().sync_all()).map_err(at(path))?;
        Ok(())
    }
}

/// Adds a file whose size is known only once it is written: its header is written again then.
fn append(out: &mut BufWriter<File>, name: &str, reader: &mut dyn Read) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_mode(0o644);
    let begin = out.stream_position()?;
    out.write_all(header.as_bytes())?;
    let size = io::copy(reader, out)?;
    out.write_all(&vec![0; usize::try_from(size.next_multiple_of(512) - size).expect("it is below 512")])?;
    let end = out.stream_position()?;
    header.set_size(size);
    header.set_cksum();
    out.seek(SeekFrom::Start(begin))?;
    out.write_all(header.as_bytes())?;
    out.seek(SeekFrom::Start(end))?;
    Ok(())
}

/// Counts what was read, to know where in the file an entry is.
struct Counted<R> {
    reader: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// Lists what is in the file, by name.
fn contents(path: &Path, file: &File) -> Result<BTreeMap<String, Found>, DockerArchiveError> {
    let not =
        |reason: &str| DockerArchiveError::NotAnArchive { path: path.to_owned(), reason: reason.into() };
    let mut magic = [0; 6];
    let begins = file.try_clone().and_then(|mut file| {
        file.rewind()?;
        let read = file.read(&mut magic)?;
        file.rewind()?;
        Ok(read)
    });
    if begins.map_err(at(path))? >= 4
        && (magic.starts_with(&[0x1f, 0x8b]) || magic.starts_with(&[0x28, 0xb5, 0x2f]))
    {
        return Err(not("it is compressed; unpack it with gunzip or unzstd first"));
    }
    let broken = |source| DockerArchiveError::Archive { path: path.to_owned(), source };
    let mut archive = Archive::new(Counted { reader: BufReader::with_capacity(1 << 20, file), count: 0 });
    let mut found = BTreeMap::new();
    while let Some(header) = archive.next().map_err(broken)? {
        if found.len() == ENTRIES_MAX {
            return Err(not("it has too many files"));
        }
        let Some(name) = normal(&String::from_utf8_lossy(&header.path)) else { continue };
        match header.kind {
            b'0' | 0 | b'7' => {
                let part = Part { offset: archive.reader().count, size: header.size };
                found.insert(name, Found::Part(part));
            }
            b'1' => {
                found.insert(name, Found::Link(String::from_utf8_lossy(&header.link).into_owned()));
            }
            b'2' => {
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = format!("{folder}/{}", String::from_utf8_lossy(&header.link));
                found.insert(name, Found::Link(target));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Resolves `.` and `..` within the archive; none for what leads out of it.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn part(found: &BTreeMap<String, Found>, name: &str) -> Option<Part> {
    let mut name = normal(name)?;
    for _ in 0..LINKS_MAX {
        match found.get(&name)? {
            Found::Part(part) => return Some(*part),
            Found::Link(target) => name = normal(target)?,
        }
    }
    None
}

fn choose<'a>(
    path: &Path,
    list: &'a [EntryWire],
    name: Option<&str>,
) -> Result<&'a EntryWire, DockerArchiveError> {
    let tags = |entry: &'a EntryWire| entry.repo_tags.iter().flatten();
    let found = match (name, list) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), list) => list.iter().find(|entry| tags(entry).any(|tag| is_same(tag, name))),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = list.iter().flat_map(tags).map(String::as_str).take(20).collect();
        DockerArchiveError::Missing {
            path: path.to_owned(),
            wanted: name.map_or_else(|| "without a name".into(), |name| format!("`{name}`")),
            found: if names.is_empty() { format!("{} without names", list.len()) } else { names.join(", ") },
        }
    })
}

/// Whether two names are of one image: some write `docker.io/` before those that have no host.
fn is_same(tag: &str, name: &str) -> bool {
    let whole = |text: &str| text.parse::<ImageReference>().ok();
    tag == name || whole(tag).is_some_and(|tag| whole(name) == Some(tag))
}

fn read(file: &mut File, part: Part) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(part.offset))?;
    file.take(part.size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Hashes a part, and returns the media type of a layer that begins as it does.
fn hash(file: &mut File, part: Part) -> io::Result<(ContentDigest, &'static str)> {
    file.seek(SeekFrom::Start(part.offset))?;
    let mut reader = file.take(part.size);
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut buffer = vec![0; 256 << 10];
    let mut kind = None;
    loop {
        let count = reader.read(&mut buffer)?;
        kind.get_or_insert(match &buffer[..count] {
            [0x1f, 0x8b, ..] => "application/vnd.oci.image.layer.v1.tar+gzip",
            [0x28, 0xb5, 0x2f, 0xfd, ..] => "application/vnd.oci.image.layer.v1.tar+zstd",
            _ => "application/vnd.oci.image.layer.v1.tar",
        });
        if count == 0 {
            return Ok((hasher.digest(), kind.expect("it was set just now")));
        }
        hasher.update(&buffer[..count]);
    }
}

impl Origin for DockerArchive {
    fn manifest(&self, _: &Reference) -> Result<(Vec<u8>, Option<String>), ImageError> {
        Ok((self.manifest.clone(), None))
    }

    fn blob(&self, target: &Target, sink: &mut dyn Write) -> Result<(), ImageError> {
        let part = self.parts.get(&target.digest).expect("only what the manifest names is asked for");
        // Several are read at once, each at a place of its own.
        let mut file = File::open(&self.path).map_err(at(&self.path))?;
        file.seek(SeekFrom::Start(part.offset)).map_err(at(&self.path))?;
        let mut reader = file.take(part.size);
        let found = copy_exactly(target, &mut reader, sink).map_err(at(&self.path))?;
        if found != target.digest {
            let reason = "it changed while it was read".into();
            return Err(DockerArchiveError::NotAnArchive { path: self.path.clone(), reason }.into());
        }
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DockerArchiveError {
    let path = path.to_owned();
    move |source| DockerArchiveError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_parts_of_the_archive_and_nowhere_else() {
        let link = |target: &str| Found::Link(target.into());
        let part_at = |offset| Part { offset, size: 1 };
        let found = BTreeMap::from([
            ("a/layer.tar".to_owned(), Found::Part(part_at(512))),
            ("b/layer.tar".to_owned(), link("b/../a/layer.tar")),
            ("circle".to_owned(), link("circle")),
            ("out".to_owned(), link("../../etc/passwd")),
            ("gone".to_owned(), link("nothing")),
        ]);
        assert_eq!(part(&found, "./b/layer.tar").unwrap().offset, 512);
        for name in ["circle", "out", "gone", "nothing", "../a/layer.tar", ""] {
            assert!(part(&found, name).is_none(), "{name}");
        }
    }

    /// Writes a tar of files, in order.
    fn archive(folder: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("x.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.finish().unwrap();
        path
    }

    #[test]
    fn what_is_not_of_docker_save_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let list = br#"[{"Config":"c.json","Layers":["l.tar"],"RepoTags":["a:v1"]}]"#;
        let two = br#"[{"Config":"c.json","Layers":[],"RepoTags":["a:v1"]},{"Config":"c.json","Layers":[]}]"#;
        type Files<'a> = &'a [(&'a str, &'a [u8])];
        let cases: [(Files<'_>, &str); 5] = [
            (&[("x", b"")], "no manifest.json"),
            (&[("manifest.json", b"{}")], "not a list of images"),
            (&[("manifest.json", list)], "it lacks `c.json`"),
            (&[("manifest.json", list), ("c.json", b"{}")], "it lacks `l.tar`"),
            (&[("manifest.json", two), ("c.json", b"{}")], "no image without a name; it has a:v1"),
        ];
        for (files, said) in cases {
            let error = DockerArchive::open(&archive(folder.path(), files), None).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        let path = archive(folder.path(), &[("manifest.json", two), ("c.json", b"{}")]);
        // Some write the host that others leave out.
        for name in ["a:v1", "docker.io/library/a:v1"] {
            assert!(DockerArchive::open(&path, Some(name)).is_ok(), "{name}");
        }
        assert!(DockerArchive::open(&path, Some("b:v1")).is_err());
    }
}
