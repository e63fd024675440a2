//! Proof that a bake is reproducible: it is done a second time where all that may not decide is different.
//!
//! The second bake is one of its own process, in surroundings that [`run_elsewhere`] makes, from a copy of the captured folder and
//! with a store of its own. Of both only manifests, configs and layers are compared: they are what an image is.

mod blame;
mod compare;
mod elsewhere;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kiln_model::image::Image;
use kiln_model::{Digest, ImageName};
use kiln_store::{PutError, ReadError};
use serde_json::{Value, json};

use blame::Earlier;
pub use compare::{CompareError, Difference, FileDifference};
pub use elsewhere::{ELSEWHERE_COMMAND, ElsewhereError, run_elsewhere};

use crate::attest::{self, AttestError, Statement, said_about};
use crate::bake::MadePart;
use crate::baker::Baker;
use crate::cache::PACKAGES;
use crate::oci::canonical;
use crate::sandbox::die_with_parent;

/// The media type of a certificate.
pub const CERTIFICATE_TYPE: &str = "application/vnd.kiln.proof.v1+json";

/// The second bake begins this long after the first has ended: a program that reads the machine's clock past our library, to the
/// second, then writes another time.
const APART: Duration = Duration::from_millis(1100);

/// A bake on a file system in memory needs its packages unpacked, its layers, and what its steps write, for each image once more
/// where they share nothing.
const MEMORY_FACTOR: u64 = 4;

/// Packages are unpacked beside what they become, however small the images are.
const MEMORY_BYTES_MIN: u64 = 256 << 20;

/// What the second bake came to.
#[derive(Debug)]
pub enum Verdict {
    /// The same image; the digest of its certificate.
    Proven(Digest),
    /// Another one.
    Differs(Vec<Difference>),
    /// The same image, but a step of it could reach the network: nothing says that what it fetched stays.
    Unproven(Vec<String>),
}

/// Why nothing is proven and nothing found.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// There is no place for the second bake.
    #[error("{} can't be used for the second bake", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The second bake can't be started.
    #[error("the second bake can't be started")]
    Start(#[source] io::Error),
    /// The second bake failed.
    #[error("the first bake succeeded and the second, elsewhere, did not; it said:\n{log}")]
    Failed {
        /// Its last words.
        log: String,
    },
    /// What the second bake answered makes no sense.
    #[error("the second bake gave no answer")]
    Answer,
    /// The two can't be compared.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// The certificate can't be written.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The store can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store can't be written.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// Lines of the second bake that are shown where it fails.
const LOG_LINES_MAX: usize = 20;

/// What is to be proven: images that were baked just now, without any cache.
#[derive(Debug)]
pub struct Proof<'a> {
    /// The baker that made them.
    pub baker: &'a Baker,
    /// The state folder.
    pub state: &'a Path,
    /// The stack's folder, for secrets and images of files, which are not captured, or need not be.
    pub folder: &'a Path,
    /// The captured folder that they were made from.
    pub source: Digest,
    /// The images.
    pub images: &'a BTreeMap<ImageName, Image>,
    /// What each was made from.
    pub parts: &'a BTreeMap<ImageName, Vec<MadePart>>,
    /// Options of the command line that decide what the stack is: environment, variables.
    pub options: Vec<OsString>,
}

impl Proof<'_> {
    /// Bakes a second time elsewhere, compares, and attaches certificates to what is the same. Hold a lease.
    ///
    /// # Errors
    /// See [`ProofError`]. That the images differ is a verdict and no error.
    pub fn run(&self) -> Result<BTreeMap<ImageName, Verdict>, ProofError> {
        let room = Room::new(self.baker.workbench.folder())?;
        std::thread::sleep(APART);
        let memory = self.memory();
        let theirs = self.bake_elsewhere(&room, memory)?;
        let mut verdicts = BTreeMap::new();
        for (name, image) in self.images {
            let their = theirs.get(name.as_str()).ok_or(ProofError::Answer)?;
            verdicts.insert(name.clone(), self.judge(name, image, their, &room, memory)?);
        }
        Ok(verdicts)
    }

    fn judge(
        &self,
        name: &ImageName,
        image: &Image,
        their: &TheirImage,
        room: &Room,
        memory: Option<u64>,
    ) -> Result<Verdict, ProofError> {
        let store = &self.baker.store;
        let certificate = (their.manifest == image.manifest && image.unproven.is_empty())
            .then(|| self.certificate(image, memory));
        let manifest = match certificate {
            Some(certificate) => {
                let statement = Statement::new(CERTIFICATE_TYPE, CERTIFICATE_TYPE, certificate?);
                Some(attest::attach(store, &image.manifest, &statement)?)
            }
            None => None,
        };
        // An earlier certificate holds no longer, or says less.
        for said in said_about(store, &image.manifest)? {
            if said.kind() == CERTIFICATE_TYPE && Some(said.manifest) != manifest {
                store.referrers.remove(&image.manifest, &said.manifest).map_err(AttestError::Discard)?;
            }
        }
        if let Some(manifest) = manifest {
            return Ok(Verdict::Proven(manifest));
        }
        if their.manifest == image.manifest {
            return Ok(Verdict::Unproven(image.unproven.clone()));
        }
        let parts = self.parts.get(name).map_or(&[][..], |parts| parts);
        Ok(Verdict::Differs(self.compare((&image.manifest, parts), their, room)?))
    }

    /// Finds out which steps made what differs.
    fn compare(
        &self,
        (manifest, parts): (&Digest, &[MadePart]),
        their: &TheirImage,
        room: &Room,
    ) -> Result<Vec<Difference>, CompareError> {
        let store = &self.baker.store;
        let ours = |digest: &Digest| {
            // What is compared is read by its path; where that fails, whoever reads it says so.
            let _ = store.blobs.unpack(digest);
            store.blobs.path_of(digest)
        };
        // What this store has already was not brought out.
        let theirs = |digest: &Digest| {
            let brought = room.out().join(digest.hex());
            if brought.exists() { brought } else { ours(digest) }
        };
        let pairs = parts.iter().filter_map(|part| Some((part, their.parts.get(&part.name)?)));
        let earlier = pairs.map(|(part, their)| Earlier {
            name: &part.name,
            ours: (&part.manifest, &ours),
            theirs: (their, &theirs),
        });
        let earlier: Vec<Earlier<'_>> = earlier.collect();
        blame::compare((manifest, &ours), (&their.manifest, &theirs), &earlier, &room.path)
    }

    /// How much memory a file system for the second bake may have; none where there is too little.
    fn memory(&self) -> Option<u64> {
        let images: u64 = self.images.values().map(|image| image.size_bytes).sum();
        let wanted = images.saturating_mul(MEMORY_FACTOR).max(MEMORY_BYTES_MIN);
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next());
        let available = kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0).saturating_mul(1024);
        (wanted <= available / 2).then_some(wanted)
    }

    /// Returns the images that the second bake made, by name.
    fn bake_elsewhere(
        &self,
        room: &Room,
        memory: Option<u64>,
    ) -> Result<BTreeMap<String, TheirImage>, ProofError> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg(ELSEWHERE_COMMAND)
            .args([self.state, self.folder, &room.place(), &room.out(), &self.baker.root.join(PACKAGES)])
            .arg(self.source.to_string())
            .arg(memory.unwrap_or(0).to_string())
            .args(&self.options)
            .stdin(Stdio::null());
        die_with_parent(&mut command);
        let output = command.output().map_err(ProofError::Start)?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            let lines: Vec<&str> = text.lines().collect();
            let log = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
            return Err(ProofError::Failed { log });
        }
        let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| ProofError::Answer)?;
        let images = answer["images"].as_object().ok_or(ProofError::Answer)?;
        let digest = |value: &Value| value.as_str()?.parse().ok();
        let image = |(name, value): (&String, &Value)| {
            let parts = answer["parts"][name].as_array().into_iter().flatten();
            let part = |part: &Value| Some((part["name"].as_str()?.to_owned(), digest(&part["manifest"])?));
            let parts = parts.map(part).collect::<Option<_>>()?;
            Some((name.clone(), TheirImage { manifest: digest(value)?, parts }))
        };
        images.iter().map(image).collect::<Option<_>>().ok_or(ProofError::Answer)
    }

    /// What was varied and what came out. It has no time: the same proof is the same certificate.
    fn certificate(&self, image: &Image, memory: Option<u64>) -> Result<Vec<u8>, ProofError> {
        let store = &self.baker.store;
        let manifest = store.blobs.read_verified(&image.manifest)?;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let said = said_about(store, &image.manifest)?;
        let provenance = said.iter().find(|said| said.kind() == attest::PROVENANCE);
        let varied =
            |what: &str, first: &str, second: &str| json!({ "first": first, "second": second, "what": what });
        let mut all = vec![
            varied("cache", "none", "none"),
            varied("clock of Kiln", "the machine's", elsewhere::CLOCK),
            varied("time of day of programs that read the machine's clock", "then", "a second later or more"),
            varied("folder", "the stack's", "a copy under another name"),
            varied("host name", "the machine's", elsewhere::HOST_NAME),
            varied("umask", "the caller's", "077"),
            varied("environment", "the caller's", elsewhere::ENVIRONMENT),
        ];
        let mut same = Vec::new();
        match memory {
            Some(_) => all.push(varied("file system, and its order", "the state folder's", "tmpfs")),
            None => same.push("file system: there is too little memory for one in it"),
        }
        match std::thread::available_parallelism().map_or(1, usize::from) {
            1 => same.push("processors: the machine has one"),
            count => all.push(varied("processors", &count.to_string(), "1")),
        }
        let certificate = json!({
            "configDigest": manifest["config"]["digest"],
            "image": image.manifest.to_string(),
            "kiln": env!("CARGO_PKG_VERSION"),
            "layers": manifest["layers"].as_array().into_iter().flatten().map(|layer| &layer["digest"]).collect::<Vec<_>>(),
            "notVaried": same,
            // The statement that names all inputs.
            "provenance": provenance.map(|said| said.payload.to_string()),
            "varied": all,
            "verdict": "proven",
        });
        Ok(canonical(&certificate))
    }
}

/// What the second bake made of an image.
struct TheirImage {
    manifest: Digest,
    /// The manifests of what it was made from, by name.
    parts: BTreeMap<String, Digest>,
}

/// A folder for the second bake, gone with the value. Its name is that of a bench, so that the next bake finds it where this
/// process was killed.
struct Room {
    path: PathBuf,
}

impl Room {
    fn new(work: &Path) -> Result<Self, ProofError> {
        let path = work.join(format!("{}.proof", std::process::id()));
        let room = Self { path };
        for folder in [room.place(), room.out()] {
            fs::create_dir_all(&folder).map_err(|source| ProofError::Folder { path: folder, source })?;
        }
        Ok(room)
    }

    /// Where it is baked.
    fn place(&self) -> PathBuf {
        self.path.join("elsewhere")
    }

    /// Where what came out is brought.
    fn out(&self) -> PathBuf {
        self.path.join("out")
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
