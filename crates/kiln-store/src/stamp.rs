//! What files hashed to, noted beside what the file system says of them: a file of which it says the same need not be read
//! again.
//!
//! As Git's index. Every write changes a file's `ctime`, which no program can set; so a note is good as long as device, inode,
//! size, `mtime` and `ctime` are those that were noted. Two writes within one tick of the file system's clock look the same,
//! so nothing is noted of a file that changed just before it was read.
//!
//! Notes are a cache: what is torn, odd or lost is as good as absent.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_model::Digest;

use crate::shelf::{self, sha256};

/// How a file of notes begins. Another format has another head, and its notes are then read as absent.
const HEAD: &[u8] = b"kiln.stamps/1\n";

/// The coarsest clock of a file system that people build on; a file that is younger may change without its times changing.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// What is in a folder or a store; a larger file of notes is something else.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What of a note has a fixed length: the key's length, eight numbers and a digest.
const FIXED_BYTES: usize = 2 + 8 * 8 + 32;

/// What a file system says of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds since the epoch.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Takes it from what `stat` says; take it before the file is read.
    pub fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// As [`Stamp::of`], from what the system call itself says.
    pub(crate) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
            modified: (stat.st_mtime, stat.st_mtime_nsec.cast_signed()),
            changed: (stat.st_ctime, stat.st_ctime_nsec.cast_signed()),
        }
    }

    /// Whether a later write would show, if the file is read from now on.
    fn is_settled(&self, now: SystemTime) -> bool {
        let latest = self.modified.0.max(self.changed.0);
        let settled = UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(latest).unwrap_or(0)));
        settled.and_then(|at| at.checked_add(SETTLED_AFTER)).is_some_and(|at| at < now)
    }

    fn numbers(&self) -> [u64; 7] {
        let Self { device, inode, size, modified, changed } = *self;
        let times = [modified.0, modified.1, changed.0, changed.1].map(i64::cast_unsigned);
        [device, inode, size, times[0], times[1], times[2], times[3]]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Note {
    stamp: Stamp,
    digest: Digest,
    /// When it was read, in seconds since the epoch.
    read_at: u64,
}

/// Notes about files, by names that whoever notes chooses.
#[derive(Debug)]
pub struct Stamps {
    path: PathBuf,
    written: Written,
    /// What was noted since; none where what was written is forgotten.
    changes: BTreeMap<Vec<u8>, Option<Note>>,
}

/// Notes as they were read: most are asked for once or never, so they stay as they are in the file.
#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    /// How the name of each note begins, and where the note does, in the order of the names. Names that begin alike are few where
    /// they are digests, and the notes themselves lie all over the memory.
    starts: Vec<(u64, u32)>,
}

impl Stamps {
    /// Reads the notes in a file; none where there are none.
    pub fn open(path: PathBuf) -> Self {
        let small = fs::metadata(&path).is_ok_and(|meta| meta.len() <= FILE_BYTES_MAX);
        let bytes = if small { fs::read(&path).unwrap_or_default() } else { Vec::new() };
        Self { path, written: Written::parse(bytes).unwrap_or_default(), changes: BTreeMap::new() }
    }

    /// Returns what a file hashed to when it last had this stamp; none where that is unknown, or was before `not_before`.
    pub fn digest(&self, name: &[u8], stamp: &Stamp, not_before: SystemTime) -> Option<Digest> {
        let note = self.get(name).filter(|note| note.stamp == *stamp)?;
        (UNIX_EPOCH + Duration::from_secs(note.read_at) >= not_before).then_some(note.digest)
    }

    /// Notes what a file hashed to whose stamp was taken at `began`, before it was read.
    pub fn note(&mut self, name: &[u8], stamp: Stamp, digest: Digest, began: SystemTime) {
        if !stamp.is_settled(began) || u16::try_from(name.len()).is_err() {
            self.forget(name.to_vec());
            return;
        }
        let read_at = began.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.changes.insert(name.to_vec(), Some(Note { stamp, digest, read_at }));
    }

    /// Forgets the notes of which `keep` says no.
    pub fn retain(&mut self, keep: impl Fn(&[u8]) -> bool) {
        let doomed: Vec<_> =
            self.iter().filter(|(name, _)| !keep(name)).map(|(name, _)| name.to_vec()).collect();
        doomed.into_iter().for_each(|name| self.forget(name));
    }

    /// Returns how many notes there are.
    pub fn count(&self) -> usize {
        let change = |(name, note): (&Vec<u8>, &Option<Note>)| {
            isize::from(note.is_some()) - isize::from(self.written.get(name).is_some())
        };
        self.written.starts.len().saturating_add_signed(self.changes.iter().map(change).sum())
    }

    /// Writes the notes if there are others than were read. Nobody waits for the disk: what a power cut tears is absent.
    ///
    /// # Errors
    /// The file system refused; what was there stays.
    pub fn save(&self) -> io::Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        let partial = folder.join(format!(".{}.{}", std::process::id(), shelf::next_number()));
        let written = fs::write(&partial, self.encode()).and_then(|()| fs::rename(&partial, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn get(&self, name: &[u8]) -> Option<Note> {
        match self.changes.get(name) {
            Some(changed) => *changed,
            None => self.written.get(name),
        }
    }

    fn forget(&mut self, name: Vec<u8>) {
        match self.written.get(&name) {
            Some(_) => drop(self.changes.insert(name, None)),
            None => drop(self.changes.remove(&name)),
        }
    }

    /// Iterates over all notes, in no order.
    fn iter(&self) -> impl Iterator<Item = (&[u8], Note)> {
        let written = self.written.iter().filter(|(name, _)| !self.changes.contains_key(*name));
        let changed = self.changes.iter().filter_map(|(name, note)| Some((&name[..], (*note)?)));
        written.chain(changed)
    }

    fn encode(&self) -> Vec<u8> {
        let mut notes: Vec<_> = self.iter().collect();
        notes.sort_unstable_by_key(|(name, _)| *name);
        let mut bytes = HEAD.to_vec();
        for (name, note) in notes {
            let length = u16::try_from(name.len()).expect("a longer name is not noted");
            bytes.extend(length.to_le_bytes());
            note.stamp.numbers().iter().chain([&note.read_at]).for_each(|it| bytes.extend(it.to_le_bytes()));
            bytes.extend(note.digest.as_bytes());
            bytes.extend(name);
        }
        let sum = sha256(&bytes);
        bytes.extend(sum.as_bytes());
        bytes
    }
}

impl Written {
    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
        if sha256(body).as_bytes() != sum || !body.starts_with(HEAD) {
            return None;
        }
        let (mut starts, mut at, end) = (Vec::new(), HEAD.len(), body.len());
        while at < end {
            let length: [u8; 2] = body.get(at..at + 2)?.try_into().expect("two bytes were taken");
            starts.push(u32::try_from(at).ok()?);
            at += FIXED_BYTES + usize::from(u16::from_le_bytes(length));
        }
        if at != end {
            return None;
        }
        let mut written = Self { bytes, starts: Vec::new() };
        let mut starts: Vec<_> = starts.into_iter().map(|at| (beginning(written.name(at)), at)).collect();
        let key = |(beginning, at): &(u64, u32)| (*beginning, written.name(*at));
        if !starts.is_sorted_by(|one, other| one.0 < other.0 || key(one) <= key(other)) {
            starts.sort_by(|one, other| key(one).cmp(&key(other)));
        }
        written.starts = starts;
        Some(written)
    }

    fn get(&self, name: &[u8]) -> Option<Note> {
        let wanted = beginning(name);
        let compare = |&(begins, at): &(u64, u32)| begins.cmp(&wanted).then_with(|| self.name(at).cmp(name));
        let index = self.starts.binary_search_by(compare).ok()?;
        Some(self.note(self.starts[index].1))
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], Note)> {
        self.starts.iter().map(|(_, at)| (self.name(*at), self.note(*at)))
    }

    /// The name of the note that begins at `start`.
    fn name(&self, start: u32) -> &[u8] {
        let note = &self.bytes[start as usize..];
        let length = usize::from(u16::from_le_bytes([note[0], note[1]]));
        &note[FIXED_BYTES..FIXED_BYTES + length]
    }

    fn note(&self, start: u32) -> Note {
        let fixed = &self.bytes[start as usize..][..FIXED_BYTES];
        let number = |at: usize| {
            let bytes = fixed[2 + 8 * at..][..8].try_into().expect("eight bytes were taken");
            u64::from_le_bytes(bytes)
        };
        let time = |at: usize| (number(at).cast_signed(), number(at + 1).cast_signed());
        let stamp = Stamp {
            device: number(0),
            inode: number(1),
            size: number(2),
            modified: time(3),
            changed: time(5),
        };
        let digest = fixed[FIXED_BYTES - 32..].try_into().expect("a note ends with 32 bytes");
        Note { stamp, digest: Digest::new(digest), read_at: number(7) }
    }
}

/// The first bytes of a name as a number, which is in the order of the names but for those that begin alike.
fn beginning(name: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let length = name.len().min(bytes.len());
    bytes[..length].copy_from_slice(&name[..length]);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(10);

    fn stamp(path: &Path) -> Stamp {
        Stamp::of(&fs::metadata(path).unwrap())
    }

    #[test]
    fn a_file_is_known_until_it_changes_even_if_its_size_and_time_are_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let (file, notes) = (folder.path().join("a"), folder.path().join("notes/n"));
        fs::write(&file, "one").unwrap();
        let (digest, before) = (sha256(b"one"), stamp(&file));
        let mut stamps = Stamps::open(notes.clone());
        stamps.note(b"a", before, digest, SystemTime::now() + LATER);
        stamps.save().unwrap();
        let stamps = Stamps::open(notes.clone());
        assert_eq!(stamps.digest(b"a", &stamp(&file), UNIX_EPOCH), Some(digest));
        assert_eq!(stamps.digest(b"b", &before, UNIX_EPOCH), None);
        assert_eq!(stamps.digest(b"a", &before, SystemTime::now() + LATER * 2), None, "that is long ago");
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        // The file system's clock has to tick for the change to show: that is what settling is for.
        while stamp(&file).changed == before.changed {
            fs::write(&file, "two").unwrap();
            fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        }
        assert_eq!(stamp(&file).modified, before.modified);
        assert_eq!(stamps.digest(b"a", &stamp(&file), UNIX_EPOCH), None);
    }

    #[test]
    fn what_changed_a_moment_ago_is_not_noted_and_what_was_noted_of_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        fs::write(&file, "one").unwrap();
        let mut stamps = Stamps::open(folder.path().join("notes"));
        let (stamp, digest) = (stamp(&file), sha256(b"one"));
        stamps.note(b"a", stamp, digest, SystemTime::now() + LATER);
        assert_eq!(stamps.count(), 1);
        let changed = UNIX_EPOCH + Duration::from_secs(stamp.changed.0.cast_unsigned());
        stamps.note(b"a", stamp, digest, changed + Duration::from_millis(1999));
        assert_eq!(stamps.count(), 0);
    }

    #[test]
    fn what_was_written_is_found_in_any_order_and_changes_lie_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let (stamp, now) = (stamp(folder.path()), SystemTime::now() + LATER);
        let mut stamps = Stamps::open(path.clone());
        for name in ["c", "a", "bb"] {
            stamps.note(name.as_bytes(), stamp, sha256(name.as_bytes()), now);
        }
        stamps.save().unwrap();
        // As an earlier Kiln wrote it: in the order in which they were noted.
        let whole = fs::read(&path).unwrap();
        let length = FIXED_BYTES + 1;
        let [a, bb, c] = [(0, length), (length, length + 1), (2 * length + 1, length)]
            .map(|(from, length)| &whole[HEAD.len() + from..][..length]);
        let mut mixed = [HEAD, c, a, bb].concat();
        mixed.extend(sha256(&mixed).as_bytes());
        for bytes in [whole.clone(), mixed] {
            fs::write(&path, bytes).unwrap();
            let mut stamps = Stamps::open(path.clone());
            for name in ["a", "bb", "c"] {
                let found = stamps.digest(name.as_bytes(), &stamp, UNIX_EPOCH);
                assert_eq!(found, Some(sha256(name.as_bytes())), "{name}");
            }
            assert_eq!((stamps.digest(b"b", &stamp, UNIX_EPOCH), stamps.count()), (None, 3));
            stamps.note(b"a", stamp, sha256(b"other"), now);
            stamps.note(b"d", stamp, sha256(b"d"), now);
            stamps.retain(|name| name != b"c");
            assert_eq!(stamps.count(), 3);
            stamps.save().unwrap();
            let stamps = Stamps::open(path.clone());
            let found = ["a", "bb", "c", "d"].map(|name| stamps.digest(name.as_bytes(), &stamp, UNIX_EPOCH));
            let expected = [Some("other"), Some("bb"), None, Some("d")];
            assert_eq!(found, expected.map(|text| text.map(|text| sha256(text.as_bytes()))));
        }
    }

    #[test]
    fn names_that_begin_alike_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (stamp, now) = (stamp(folder.path()), SystemTime::now() + LATER);
        let mut stamps = Stamps::open(folder.path().join("notes"));
        let names: [&[u8]; 8] =
            [b"", b"\0", b"a", b"a\0", b"a\0\0\0\0\0\0\0\0", b"web/file", b"web/files/1", b"web/files/2"];
        for name in names.into_iter().rev() {
            stamps.note(name, stamp, sha256(name), now);
        }
        stamps.save().unwrap();
        let stamps = Stamps::open(folder.path().join("notes"));
        for name in names {
            assert_eq!(stamps.digest(name, &stamp, UNIX_EPOCH), Some(sha256(name)), "{name:?}");
        }
        for name in [&b"a\0\0"[..], b"web/fil", b"web/files/", b"web/files/3"] {
            assert_eq!(stamps.digest(name, &stamp, UNIX_EPOCH), None, "{name:?}");
        }
    }

    #[test]
    fn torn_or_foreign_notes_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        let mut stamps = Stamps::open(path.clone());
        let stamp = stamp(folder.path());
        for name in [&b"a"[..], b"", &[0xff; 300]] {
            stamps.note(name, stamp, sha256(name), SystemTime::now() + LATER);
        }
        stamps.save().unwrap();
        let read = Stamps::open(path.clone());
        assert_eq!(read.iter().collect::<BTreeMap<_, _>>(), stamps.iter().collect());
        let whole = fs::read(&path).unwrap();
        for cut in [0, 1, HEAD.len() + 40, whole.len() - 1] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Stamps::open(path.clone()).count(), 0, "{cut}");
        }
        let mut odd = HEAD.to_vec();
        odd.extend([9; 50]);
        odd.extend(sha256(&odd).as_bytes());
        fs::write(&path, odd).unwrap();
        assert_eq!(Stamps::open(path).count(), 0);
    }
}
