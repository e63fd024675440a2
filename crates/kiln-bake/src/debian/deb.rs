//! One package file: an `ar` of two tars, read as hostile input.
//!
//! Source: deb(5), ar(5). Contents go straight into the store's objects; nothing is unpacked into a folder.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use kiln_store::tree::PathError;
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, PutError, TreePath};
use md5::{Digest as _, Md5};
use tar::EntryType;

use crate::tape::guard;

/// The largest package of Debian unpacks to 5 GB.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// The largest package of Debian has 130,000 files.
const ENTRIES_MAX: usize = 1 << 20;

/// Maintainer scripts and lists of files; the largest `md5sums` of Debian has 10 MB.
const CONTROL_BYTES_MAX: u64 = 64 << 20;

/// A frame that asks for more memory than this to decompress is refused; dpkg-deb's presets need 64 MiB.
const XZ_MEMORY_MAX: u64 = 256 << 20;

/// What is in a package.
#[derive(Debug)]
pub(crate) struct Deb {
    /// The control files by name.
    pub(crate) control: BTreeMap<String, Vec<u8>>,
    /// The files in the package's own order.
    pub(crate) files: Vec<DebFile>,
    /// The md5 of each configuration file, as dpkg's database wants it.
    pub(crate) conffiles: Vec<(TreePath, String)>,
}

/// One file of a package.
#[derive(Debug)]
pub(crate) struct DebFile {
    /// Where it goes, before symlinked folders of the tree are followed.
    pub(crate) path: TreePath,
    /// What it is.
    pub(crate) content: DebContent,
}

/// What a file of a package is.
#[derive(Debug)]
pub(crate) enum DebContent {
    /// A file, folder or link of its own.
    Entry(Entry),
    /// Another name of a file of the same package.
    HardLink(TreePath),
}

/// Why a package can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It can't be read, or its compression is broken.
    #[error("it can't be read")]
    Read(#[source] io::Error),
    /// It breaks the format.
    #[error("it is malformed: {0}")]
    Malformed(String),
    /// A path of it can't be in an image.
    #[error("it holds a path that leads out")]
    Path(#[source] PathError),
    /// It holds something that no package may.
    #[error("{path} in it is a {what}, which a package may not hold")]
    Forbidden {
        /// Where.
        path: TreePath,
        /// What.
        what: &'static str,
    },
    /// It is larger than any package should be.
    #[error("it unpacks to more than {0}")]
    TooLarge(&'static str),
    /// Its files can't be stored.
    #[error("its files can't be stored")]
    Put(#[source] PutError),
}

/// Reads a package, and adds the content of its files to a batch of objects.
pub(crate) fn read(path: &Path, objects: &Batch) -> Result<Deb, DebError> {
    let mut file = File::open(path).map_err(DebError::Read)?;
    let members = members(&mut file)?;
    let open = |prefix: &str| -> Result<Box<dyn Read>, DebError> {
        let member = members.iter().find(|member| member.name.starts_with(prefix));
        let member = member.ok_or_else(|| DebError::Malformed(format!("it has no {prefix}")))?;
        let mut part = File::open(path).map_err(DebError::Read)?;
        part.seek(SeekFrom::Start(member.offset)).map_err(DebError::Read)?;
        decompress(BufReader::new(part.take(member.size)), &member.name)
    };
    let control = read_control(open("control.tar")?)?;
    let listed = control.get("conffiles").map(Vec::as_slice).unwrap_or_default();
    let mut reader = DataReader {
        objects,
        // Lines such as `remove-on-upgrade /etc/x` name files that are not there.
        conffiles: String::from_utf8_lossy(listed)
            .lines()
            .filter_map(|line| TreePath::parse(line.trim().strip_prefix('/')?).ok())
            .map(|path| (path, None))
            .collect(),
        files: Vec::new(),
        bytes: 0,
    };
    reader.read(open("data.tar")?)?;
    let DataReader { conffiles, files, .. } = reader;
    let conffiles = conffiles.into_iter().filter_map(|(path, md5)| Some((path, md5?))).collect();
    Ok(Deb { control, files, conffiles })
}

struct Member {
    name: String,
    offset: u64,
    size: u64,
}

/// Reads the headers of an `ar`: 60 bytes each, contents padded to an even length.
fn members(file: &mut File) -> Result<Vec<Member>, DebError> {
    let malformed = |what: &str| DebError::Malformed(what.into());
    let mut magic = [0; 8];
    file.read_exact(&mut magic).map_err(DebError::Read)?;
    if &magic != b"!<arch>\n" {
        return Err(malformed("it is not an ar archive"));
    }
    let length = file.metadata().map_err(DebError::Read)?.len();
    let mut members = Vec::new();
    let mut at = 8;
    while at + 60 <= length {
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(at)).map_err(DebError::Read)?;
        file.read_exact(&mut header).map_err(DebError::Read)?;
        let text = std::str::from_utf8(&header).map_err(|_| malformed("a member's header is not text"))?;
        let size: u64 = text[48..58].trim().parse().map_err(|_| malformed("a member has no size"))?;
        let name = text[..16].trim().trim_end_matches('/').to_owned();
        let offset = at + 60;
        at = offset.checked_add(size).ok_or_else(|| malformed("a member is too large"))?;
        if at > length {
            return Err(malformed("a member is cut off"));
        }
        members.push(Member { name, offset, size });
        at += at % 2;
    }
    if members.first().is_none_or(|member| member.name != "debian-binary") {
        return Err(malformed("it does not begin with debian-binary"));
    }
    Ok(members)
}

fn decompress(part: impl io::BufRead + 'static, name: &str) -> Result<Box<dyn Read>, DebError> {
    let (_, extension) = name.split_once(".tar").unwrap_or((name, ""));
    Ok(match extension {
        ".xz" => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY_MAX, liblzma::stream::CONCATENATED)
                    .map_err(|error| DebError::Read(error.into()))?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(part, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::with_buffer(part).map_err(DebError::Read)?),
        ".gz" => Box::new(flate2::bufread::MultiGzDecoder::new(part)),
        "" => Box::new(part),
        other => return Err(DebError::Malformed(format!("`{other}` is an unknown compression"))),
    })
}

fn read_control(tar: impl Read) -> Result<BTreeMap<String, Vec<u8>>, DebError> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(tar.take(CONTROL_BYTES_MAX));
    for entry in archive.entries().map_err(DebError::Read)? {
        let mut entry = entry.map_err(DebError::Read)?;
        let path = TreePath::parse(entry.path_bytes()).map_err(DebError::Path)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8(path.as_bytes().to_vec()).ok().filter(|name| plain_name(name));
        let name = name.ok_or_else(|| DebError::Malformed(format!("{path} is no control file")))?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(DebError::Read)?;
        files.insert(name, bytes);
    }
    if !files.contains_key("control") {
        return Err(DebError::Malformed("it has no control file".into()));
    }
    Ok(files)
}

/// The name becomes part of a path in dpkg's database.
fn plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

struct DataReader<'a> {
    objects: &'a Batch,
    conffiles: BTreeMap<TreePath, Option<String>>,
    files: Vec<DebFile>,
    bytes: u64,
}

impl DataReader<'_> {
    fn read(&mut self, tar: impl Read) -> Result<(), DebError> {
        let (guarded, allowance) = guard(tar.take(UNPACKED_BYTES_MAX));
        let mut archive = tar::Archive::new(guarded);
        for entry in archive.entries().map_err(DebError::Read)? {
            let mut entry = entry.map_err(DebError::Read)?;
            allowance.entry(entry.size());
            if self.files.len() >= ENTRIES_MAX {
                return Err(DebError::TooLarge("a million files"));
            }
            let path = TreePath::parse(entry.path_bytes()).map_err(DebError::Path)?;
            if let Some(content) = self.content(&path, &mut entry)? {
                self.files.push(DebFile { path, content });
            }
        }
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        path: &TreePath,
        entry: &mut tar::Entry<'_, R>,
    ) -> Result<Option<DebContent>, DebError> {
        let forbidden = |what| Err(DebError::Forbidden { path: path.clone(), what });
        let meta = meta(entry.header()).map_err(DebError::Read)?;
        let kind = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.store(path, entry)?,
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink { target: link_name(path, entry)? },
            EntryType::Link => {
                let target = TreePath::parse(link_name(path, entry)?).map_err(DebError::Path)?;
                return Ok(Some(DebContent::HardLink(target)));
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => return forbidden("device"),
            EntryType::XGlobalHeader => return Ok(None),
            _ => return forbidden("file of an unknown kind"),
        };
        Ok(Some(DebContent::Entry(Entry { meta, kind })))
    }

    fn store<R: Read>(&mut self, path: &TreePath, entry: &mut tar::Entry<'_, R>) -> Result<Kind, DebError> {
        self.bytes += entry.size();
        if self.bytes > UNPACKED_BYTES_MAX {
            return Err(DebError::TooLarge("16 GiB"));
        }
        let expected = entry.size();
        let stored = if let Some(md5) = self.conffiles.get_mut(path) {
            let mut hashed = Md5Reader { inner: &mut *entry, hash: Md5::new() };
            let stored = self.objects.put_reader(&mut hashed).map_err(DebError::Put)?;
            *md5 = Some(hashed.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            stored
        } else {
            self.objects.put_reader(&mut *entry).map_err(DebError::Put)?
        };
        if stored.size != expected {
            return Err(DebError::Malformed(format!("{path} is cut off")));
        }
        Ok(Kind::File { digest: stored.digest, size: stored.size })
    }
}

fn link_name<R: Read>(path: &TreePath, entry: &tar::Entry<'_, R>) -> Result<Vec<u8>, DebError> {
    let name = entry.link_name_bytes().filter(|name| !name.is_empty());
    name.map(|name| name.into_owned())
        .ok_or_else(|| DebError::Malformed(format!("{path} is a link to nowhere")))
}

fn meta(header: &tar::Header) -> io::Result<Meta> {
    Ok(Meta {
        mode: (header.mode()? & 0o7777) as u16,
        uid: u32::try_from(header.uid()?).unwrap_or(0),
        gid: u32::try_from(header.gid()?).unwrap_or(0),
        mtime: Mtime { secs: i64::try_from(header.mtime()?).unwrap_or(0), nanos: 0 },
        xattrs: BTreeMap::new(),
    })
}

struct Md5Reader<R> {
    inner: R,
    hash: Md5,
}

impl<R: Read> Read for Md5Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
