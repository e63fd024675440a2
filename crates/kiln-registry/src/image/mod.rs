//! Images into Kiln's store, and out of it: from and to a registry, or a folder or file that other tools read.
//!
//! An image that comes in keeps its bytes: manifest, config and layers are blobs of the store, so it goes out again under the
//! same digest. Its layers are laid into one tree, as Kiln runs it.

mod about;
mod archive;
mod config;
mod cosign;
mod docker;
mod layer;
mod layout;

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_store::trees::PutTreeError;
use kiln_store::{PutError, ReadError, Store, Tree};

use crate::client::{Client, ClientError, Pushed};
use crate::digest::{Algorithm, ContentDigest};
use crate::manifest::{Manifest, ManifestError, Target};
use crate::name::Reference;
use config::{ARCHITECTURE, Config};

pub use about::{Brought, bring_said};
pub use archive::ArchiveError;
pub use config::ConfigError;
pub use docker::{DockerArchive, DockerArchiveError};
pub use layer::LayerError;
pub use layout::{Layout, LayoutError};

/// Lists of lists: none that is known is in a list that is in a list.
const LISTS_MAX: usize = 4;

/// A config says how an image runs; the largest, with a history of hundreds of steps, have some 100 KB.
const CONFIG_BYTES_MAX: u64 = 8 << 20;

/// Layers of an image: overlayfs, and so Docker, takes no more.
const LAYERS_MAX: usize = 128;

/// Blobs that are fetched or sent at once, as many as Docker does.
const TRANSFERS_AT_ONCE: usize = 3;

/// Where an image comes from.
pub trait Origin: Sync {
    /// Returns a manifest's bytes, and the media type that came with them. One that is asked for by digest has it.
    ///
    /// # Errors
    /// It is not there, or can't be read.
    fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Option<String>), ImageError>;

    /// Writes the bytes of a blob, and no more than it has.
    ///
    /// # Errors
    /// It is not there, can't be read, or is something else.
    fn blob(&self, target: &Target, sink: &mut dyn Write) -> Result<(), ImageError>;
}

/// An image can't be brought in or out. What was stored of it by then is collected some time.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The registry failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The folder failed.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The file of images failed.
    #[error(transparent)]
    DockerArchive(#[from] DockerArchiveError),
    /// A manifest can't be used.
    #[error("the manifest can't be used")]
    Manifest(#[from] ManifestError),
    /// Lists lead to lists, without end.
    #[error("the manifest is a list of lists, more than {LISTS_MAX} deep")]
    Nested,
    /// There is none for this machine.
    #[error("the image is not for linux/{ARCHITECTURE}: there is {found}")]
    NoPlatform {
        /// What there is.
        found: String,
    },
    /// It names something by sha512.
    #[error("the image names {0}, and Kiln's store knows sha256 only")]
    Algorithm(ContentDigest),
    /// It is too large in some way.
    #[error("the image has {0}")]
    TooLarge(String),
    /// The config can't be used.
    #[error("the image's config can't be used")]
    Config(#[from] ConfigError),
    /// A layer can't be used.
    #[error("layer {digest} can't be used")]
    Layer {
        /// Which one.
        digest: Digest,
        /// Why not.
        #[source]
        source: LayerError,
    },
    /// The tree can't be stored.
    #[error("the image's tree can't be stored")]
    Tree(#[from] PutTreeError),
    /// The store can't be written.
    #[error(transparent)]
    Put(#[from] PutError),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Brings an image into the store, and records it as one that comes from `source`.
///
/// Hold a lease of the store's meanwhile, and until something names the image.
///
/// # Errors
/// See [`ImageError`].
pub fn bring_in(
    store: &Store,
    origin: &dyn Origin,
    reference: &Reference,
    source: &str,
) -> Result<Image, ImageError> {
    let Found { bytes, manifest, .. } = find(origin, reference)?;
    if manifest.blobs.len() > LAYERS_MAX {
        return Err(ImageError::TooLarge(format!("{} layers, more than {LAYERS_MAX}", manifest.blobs.len())));
    }
    let digest = store.blobs.put_bytes(&bytes)?;
    if store.images.contains(&digest)
        && let Ok(image) = store.images.get(&digest)
        && store.trees.contains(&image.tree)
    {
        return Ok(image);
    }
    let (config, layers) = manifest.blobs.split_first().expect("a manifest has a config");
    if config.size > CONFIG_BYTES_MAX {
        return Err(ImageError::TooLarge(format!("a config of {} bytes", config.size)));
    }
    let mut text = Vec::new();
    origin.blob(config, &mut text)?;
    let config = Config::parse(&text, layers.len())?;
    store.blobs.put_bytes(&text)?;
    let digests: Vec<Digest> = layers.iter().map(|layer| sha256(&layer.digest)).collect::<Result<_, _>>()?;
    side_by_side(layers, |layer| fetch(store, origin, layer))?;
    let tree = unpack(store, &digests, &config)?;
    let image = Image {
        manifest: digest,
        tree: store.trees.put(&tree)?,
        config: config.run,
        size_bytes: tree.size_bytes(),
        unproven: vec![format!("it was brought in from {source}")],
    };
    store.images.put(&image)?;
    Ok(image)
}

/// Finds the digest of the manifest that a reference means for this machine, and that of the list that names it, if it is in
/// one. Brings nothing in.
///
/// # Errors
/// See [`ImageError`].
pub fn resolve(origin: &dyn Origin, reference: &Reference) -> Result<(Digest, Option<Digest>), ImageError> {
    let Found { bytes, list, .. } = find(origin, reference)?;
    let digest = |bytes: &[u8]| sha256(&ContentDigest::of(Algorithm::Sha256, bytes));
    Ok((digest(&bytes)?, list.map(|list| digest(&list)).transpose()?))
}

/// The manifest of an image for this machine.
struct Found {
    bytes: Vec<u8>,
    manifest: Manifest,
    /// The list in which it was found.
    list: Option<Vec<u8>>,
}

/// Finds the manifest of an image for this machine, through lists.
fn find(origin: &dyn Origin, reference: &Reference) -> Result<Found, ImageError> {
    let mut reference = reference.clone();
    let mut list = None;
    for _ in 0..=LISTS_MAX {
        let (bytes, kind) = origin.manifest(&reference)?;
        let manifest = Manifest::parse(kind.as_deref(), &bytes)?;
        if !manifest.blobs.is_empty() {
            return Ok(Found { bytes, manifest, list });
        }
        list = Some(bytes.clone());
        reference = Reference::Digest(choose(&bytes)?);
    }
    Err(ImageError::Nested)
}

/// Chooses what this machine runs from a list. One that says nothing of machines is a list of one, or of lists.
fn choose(list: &[u8]) -> Result<ContentDigest, ImageError> {
    #[derive(serde::Deserialize)]
    struct ListWire {
        manifests: Vec<EntryWire>,
    }
    #[derive(serde::Deserialize)]
    struct EntryWire {
        digest: String,
        platform: Option<PlatformWire>,
    }
    #[derive(serde::Deserialize)]
    struct PlatformWire {
        architecture: String,
        os: String,
    }
    let list: ListWire = serde_json::from_slice(list).map_err(ManifestError::Json)?;
    let fits = |entry: &&EntryWire| {
        let platform = entry.platform.as_ref();
        platform.is_some_and(|it| it.os == "linux" && it.architecture == ARCHITECTURE)
    };
    let bare = || match list.manifests.as_slice() {
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    };
    if let Some(entry) = list.manifests.iter().find(fits).or_else(bare) {
        let field = "list of manifests";
        let digest = entry.digest.parse().map_err(|source| ManifestError::Digest { field, source })?;
        return Ok(digest);
    }
    let found = list.manifests.iter().map(|entry| match &entry.platform {
        Some(platform) => format!("{}/{}", platform.os, platform.architecture),
        None => "one that does not say".to_owned(),
    });
    let mut found: Vec<String> = found.take(20).collect();
    found.dedup();
    let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
    Err(ImageError::NoPlatform { found })
}

fn sha256(digest: &ContentDigest) -> Result<Digest, ImageError> {
    digest.to_string().parse().map_err(|_| ImageError::Algorithm(digest.clone()))
}

/// Stores a blob unless it is there.
fn fetch(store: &Store, origin: &dyn Origin, target: &Target) -> Result<(), ImageError> {
    let digest = sha256(&target.digest)?;
    if store.blobs.size(&digest) == Some(target.size) {
        return Ok(());
    }
    let mut writer = store.blobs.writer()?;
    origin.blob(target, &mut writer)?;
    let found = writer.finish()?.digest;
    if found == digest { Ok(()) } else { Err(PutError::Mismatch { expected: digest, found }.into()) }
}

fn unpack(store: &Store, layers: &[Digest], config: &Config) -> Result<Tree, ImageError> {
    let mut tree = Tree::new();
    let mut budget = layer::Budget::default();
    let batch = store.objects.batch();
    for (digest, diff_id) in layers.iter().zip(&config.diff_ids) {
        let size = store.blobs.size(digest).unwrap_or(0);
        // A damaged blob is found here, and not only by what it unpacks to.
        let blob = store.blobs.open_verified(digest)?;
        layer::lay(&mut tree, &batch, &mut budget, blob, size, *diff_id)
            .map_err(|source| ImageError::Layer { digest: *digest, source })?;
    }
    batch.commit()?;
    Ok(tree)
}

/// Does work on a few threads, and returns the first failure.
fn side_by_side<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), ImageError> + Sync,
) -> Result<(), ImageError> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    let first = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..TRANSFERS_AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if first().is_some() {
                        return;
                    }
                    if let Err(error) = work(item) {
                        first().get_or_insert(error);
                    }
                }
            });
        }
    });
    let outcome = first().take();
    outcome.map_or(Ok(()), Err)
}

impl Origin for Client {
    fn manifest(&self, reference: &Reference) -> Result<(Vec<u8>, Option<String>), ImageError> {
        Ok(Self::manifest(self, reference)?)
    }

    fn blob(&self, target: &Target, sink: &mut dyn Write) -> Result<(), ImageError> {
        Ok(Self::blob(self, target, sink)?)
    }
}

/// What a push did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PushSummary {
    /// Blobs that were sent.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Manifests about the image that went along.
    pub referrers: usize,
}

/// Gives an image of the store to a registry, and then what is said about it: bills of materials, provenance, certificates.
///
/// # Errors
/// See [`ImageError`]. The registry has no manifest before it has all that this names.
pub fn push(
    store: &Store,
    manifest: &Digest,
    client: &Client,
    reference: &Reference,
) -> Result<PushSummary, ImageError> {
    let mut summary = PushSummary::default();
    let bytes = store.blobs.read_verified(manifest)?;
    let parsed = Manifest::parse(None, &bytes)?;
    push_blobs(store, &parsed, client, &mut summary)?;
    client.push_manifest(reference, &parsed.media_type, &bytes)?;
    for referrer in store.referrers.list(manifest)? {
        let bytes = store.blobs.read_verified(&referrer)?;
        let parsed = Manifest::parse(None, &bytes)?;
        push_blobs(store, &parsed, client, &mut summary)?;
        client.push_referrer(&parsed, &bytes)?;
        cosign::tag(client, &parsed, &bytes)?;
        summary.referrers += 1;
    }
    Ok(summary)
}

fn push_blobs(
    store: &Store,
    manifest: &Manifest,
    client: &Client,
    summary: &mut PushSummary,
) -> Result<(), ImageError> {
    let sent = Mutex::new(summary);
    side_by_side(&manifest.blobs, |target| {
        let digest = sha256(&target.digest)?;
        let file = store.blobs.open_file(&digest)?;
        let size = file.metadata().map_err(|error| ImageError::Client(ClientError::Local(error)))?.len();
        if size != target.size {
            let reason = format!("it has {size} bytes, not {}", target.size);
            return Err(ReadError::Corrupt { digest, reason }.into());
        }
        if client.push_blob(target, &file)? == Pushed::Sent {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            sent.sent += 1;
            sent.sent_bytes += target.size;
        }
        Ok(())
    })
}

/// Copies a blob that is expected to be `target`, and nothing beyond it.
fn copy_exactly(
    target: &Target,
    reader: &mut dyn io::Read,
    sink: &mut dyn Write,
) -> io::Result<ContentDigest> {
    let mut hasher = crate::digest::Hasher::new(target.digest.algorithm());
    let mut reader = io::Read::take(reader, target.size.saturating_add(1));
    let mut buffer = vec![0; 128 << 10];
    loop {
        match io::Read::read(&mut reader, &mut buffer) {
            Ok(0) => return Ok(hasher.digest()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                sink.write_all(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tars;
#[cfg(test)]
mod tests;
