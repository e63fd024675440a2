//! Uploads: what was sent so far, hashed on the way.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use super::{Storage, found};
use crate::digest::{Algorithm, ContentDigest, Hasher};
use crate::name::{NAME_BYTES_MAX, RepositoryName};

/// Reading back goes through a buffer of this size: large enough to be bound by the hash.
const READ_BYTES: usize = 256 << 10;

/// The id of an upload: a random UUID, which nobody guesses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct UploadId(Box<str>);

impl UploadId {
    fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        if read != bytes.len() {
            return Err(io::Error::other("the kernel gave too few random bytes"));
        }
        // RFC 9562, version 4.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
        Ok(Self(parts.join("-").into()))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if fits { Ok(Self(text.into())) } else { Err(()) }
    }
}

/// An upload that can be written to.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Its id.
    pub(crate) id: UploadId,
    /// Where its blob is to be.
    pub(crate) repository: RepositoryName,
    folder: PathBuf,
    size: u64,
    hasher: Hasher,
}

/// An upload did not become a blob.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FinishError {
    /// What was sent is something else. The upload is gone.
    #[error("what was sent has the digest {found}")]
    Mismatch {
        /// What was sent.
        found: ContentDigest,
    },
    /// The file system refused. The upload is as it was.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Upload {
    /// How many bytes there are.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Adds bytes. After a failure it is as it was.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(self.data())?;
        if let Err(error) = file.write_all_at(bytes, self.size) {
            // Else a full disk stays as full as it got.
            file.set_len(self.size)?;
            return Err(error);
        }
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Remembers how far it is.
    pub(crate) fn mark(&self) -> (u64, Hasher) {
        (self.size, self.hasher.clone())
    }

    /// Forgets what came since.
    pub(crate) fn rewind(&mut self, (size, hasher): (u64, Hasher)) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.data())?.set_len(size)?;
        (self.size, self.hasher) = (size, hasher);
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Hashes what is in the file, for a digest of another algorithm or after a restart.
    fn rehash(&mut self, algorithm: Algorithm) -> io::Result<()> {
        let mut file = File::open(self.data())?;
        let mut hasher = Hasher::new(algorithm);
        let mut buffer = vec![0; READ_BYTES];
        let mut size = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    size += count as u64;
                }
            }
        }
        (self.size, self.hasher) = (size, hasher);
        Ok(())
    }
}

impl Storage {
    /// Begins an upload.
    pub(crate) fn begin_upload(
        &self,
        repository: &RepositoryName,
        algorithm: Algorithm,
    ) -> io::Result<Upload> {
        let id = UploadId::random()?;
        let folder = self.root.join("uploads").join(&*id.0);
        fs::create_dir(&folder)?;
        fs::write(folder.join("repository"), repository.as_str())?;
        File::create_new(folder.join("data"))?;
        Ok(Upload { id, repository: repository.clone(), folder, size: 0, hasher: Hasher::new(algorithm) })
    }

    /// Opens an upload that an earlier process began; none where there is none.
    pub(crate) fn resume_upload(&self, id: &UploadId) -> io::Result<Option<Upload>> {
        let folder = self.root.join("uploads").join(&*id.0);
        let Some(file) = found(File::open(folder.join("repository")))? else { return Ok(None) };
        let mut name = String::new();
        file.take(NAME_BYTES_MAX as u64).read_to_string(&mut name)?;
        // A process that was killed at its first instruction left no name.
        let Ok(repository) = name.parse() else { return Ok(None) };
        let hasher = Hasher::new(Algorithm::Sha256);
        let mut upload = Upload { id: id.clone(), repository, folder, size: 0, hasher };
        match found(upload.rehash(Algorithm::Sha256))? {
            Some(()) => Ok(Some(upload)),
            None => Ok(None),
        }
    }

    /// Makes an upload a blob, durably.
    pub(crate) fn finish_upload(
        &self,
        upload: &mut Upload,
        digest: &ContentDigest,
    ) -> Result<(), FinishError> {
        if upload.hasher.algorithm() != digest.algorithm() {
            upload.rehash(digest.algorithm())?;
        }
        let found = upload.hasher.digest();
        if found != *digest {
            self.cancel_upload(upload)?;
            return Err(FinishError::Mismatch { found });
        }
        self.keep_blob(&upload.repository, digest, &upload.data(), upload.size)?;
        // The blob is there, whatever becomes of the rest, which a sweep would remove.
        if let Err(error) = self.cancel_upload(upload) {
            tracing::warn!(upload = %upload.id, %error, "what is left of a finished upload can't be removed");
        }
        Ok(())
    }

    /// Removes an upload and what was sent.
    pub(crate) fn cancel_upload(&self, upload: &Upload) -> io::Result<()> {
        found(fs::remove_dir_all(&upload.folder)).map(|_| ())
    }

    /// Removes uploads that were not written to for as long as `age`, and returns how many.
    pub(super) fn sweep_uploads(
        &self,
        age: Duration,
        is_busy: impl Fn(&UploadId) -> bool,
    ) -> io::Result<usize> {
        let mut count = 0;
        for folder in fs::read_dir(self.root.join("uploads"))? {
            let path = folder?.path();
            let written = fs::metadata(path.join("data")).or_else(|_| fs::metadata(&path));
            // One that is finished in the meantime is gone.
            let Some(meta) = found(written)? else { continue };
            // A time in the future is a clock that was set back: it is looked at again when that is past.
            let idle = SystemTime::now().duration_since(meta.modified()?).unwrap_or_default();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if idle < age || id.is_some_and(|id| is_busy(&id)) {
                continue;
            }
            count += usize::from(found(fs::remove_dir_all(&path))?.is_some());
        }
        Ok(count)
    }
}
