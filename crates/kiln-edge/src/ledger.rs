//! What became of every request, in memory that outlives the process.
//!
//! The counters lie in a shared mapping of a file: a SIGKILL loses none of them. A request that was begun and not ended
//! when its edge died was cut; the next start moves the difference to `cut` and goes on.
//!
//! Layout, version 1, in native 64-bit words: a header of 512 words, then 1024 slots of 32 words.
//!
//! | words of the header | |
//! |---|---|
//! | 0, 1, 2 | `KILNLEDG`, version, number of slots |
//! | 3 | how often an edge started with this file |
//! | 4, 5 | term and position of the highest fence seen |
//! | 6 | access log lines dropped |
//!
//! | words of a slot | |
//! |---|---|
//! | 0 | 0 free, odd while the key changes, else even |
//! | 1 | revision number |
//! | 2.. | the counters, `begun, ended, answered, made, declined, cut, gone, moved, retried` |
//! | 16..32 | stack, environment, service: each a length byte and 40 bytes |
//!
//! The first three slots are not keyed by a revision: what was folded in from slots used again, requests that no rule
//! matched, and what did not find a slot.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::{EnvKey, EnvName, Fence, Position, RevisionNumber, ServiceName, StackName, Term};

use crate::limits::LEDGER_SLOTS;
use crate::sys::WordMap;

const MAGIC: u64 = u64::from_le_bytes(*b"KILNLEDG");
const VERSION: u64 = 1;
const HEADER_WORDS: usize = 512;
const SLOT_WORDS: usize = 32;
const COUNTERS_AT: usize = 2;
const KEY_AT: usize = 16;
pub(crate) const KEY_WORDS: usize = SLOT_WORDS - KEY_AT;
const NAME_BYTES: usize = 41;
const WORDS: usize = HEADER_WORDS + LEDGER_SLOTS * SLOT_WORDS;

const GENERATION: usize = 3;
const FENCE_TERM: usize = 4;
const FENCE_POSITION: usize = 5;
const LOG_DROPPED: usize = 6;

/// Counts of slots that were used again.
const EARLIER: usize = 0;
/// Requests that no rule matched, or that were refused before they could be matched.
const UNROUTED: usize = 1;
/// Requests of revisions that found every slot taken.
const OVERFLOW: usize = 2;
const FIRST_KEYED: usize = 3;

/// One of the counters of a slot. `begun - ended` is in flight; `ended` is the sum of the rest but `retried`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Begun,
    Ended,
    Answered,
    Made,
    Declined,
    Cut,
    Gone,
    Moved,
    Retried,
}

const COUNTERS: usize = 9;

/// The counts of one revision of a service, or of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests whose head was received.
    pub begun: u64,
    /// Requests that ended, however they did.
    pub ended: u64,
    /// Ended with the whole answer of a backend, whatever its status.
    pub answered: u64,
    /// Ended with an answer of 5xx that the edge made up: lost.
    pub made: u64,
    /// Ended with an answer that the edge made up because of the client: 4xx, and 505.
    pub declined: u64,
    /// Broken off after the head by a backend, or by the death of the edge: lost.
    pub cut: u64,
    /// The client went away first.
    pub gone: u64,
    /// Went on in another revision's counts, because it was tried again there.
    pub moved: u64,
    /// Further attempts that were made. Not an end.
    pub retried: u64,
}

impl Counts {
    /// Returns how many were lost: reset, or answered by the edge with a 5xx.
    pub fn lost(&self) -> u64 {
        self.made + self.cut
    }

    /// Returns how many are under way.
    pub fn in_flight(&self) -> u64 {
        self.begun.saturating_sub(self.ended)
    }

    /// Returns the sum.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let (mine, its) = (self.to_words(), other.to_words());
        Self::from_words(std::array::from_fn(|i| mine[i].saturating_add(its[i])))
    }

    pub(crate) fn to_words(self) -> [u64; COUNTERS] {
        let Self { begun, ended, answered, made, declined, cut, gone, moved, retried } = self;
        [begun, ended, answered, made, declined, cut, gone, moved, retried]
    }

    pub(crate) fn from_words(words: [u64; COUNTERS]) -> Self {
        let [begun, ended, answered, made, declined, cut, gone, moved, retried] = words;
        Self { begun, ended, answered, made, declined, cut, gone, moved, retried }
    }
}

/// The counts of one revision of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// The environment.
    pub env: EnvKey,
    /// The service.
    pub service: ServiceName,
    /// The revision; number 0 counts requests for which no backend could be chosen.
    pub revision: RevisionNumber,
    /// Its counts.
    pub counts: Counts,
}

/// The ledger at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerSnapshot {
    /// How often an edge started with this ledger.
    pub starts: u64,
    /// Access log lines that were dropped because the disk did not keep up.
    pub log_lines_dropped: u64,
    /// By environment, service and revision, sorted.
    pub rows: Vec<LedgerRow>,
    /// Revisions whose slot was needed for another.
    pub earlier: Counts,
    /// Requests that no rule matched, and malformed ones.
    pub unrouted: Counts,
    /// Revisions that found no slot.
    pub overflow: Counts,
}

impl LedgerSnapshot {
    /// Returns the sum of everything.
    pub fn total(&self) -> Counts {
        let rest = self.earlier.plus(&self.unrouted).plus(&self.overflow);
        self.rows.iter().fold(rest, |sum, row| sum.plus(&row.counts))
    }

    /// Returns the sum over an environment, or one of its services.
    pub fn total_of(&self, env: &EnvKey, service: Option<&ServiceName>) -> Counts {
        self.rows
            .iter()
            .filter(|row| row.env == *env && service.is_none_or(|name| row.service == *name))
            .fold(Counts::default(), |sum, row| sum.plus(&row.counts))
    }
}

/// Why a ledger can't be read or opened.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file can't be opened or mapped.
    #[error("cannot open the ledger")]
    Io(#[from] io::Error),
    /// The file is something else, or of another version.
    #[error("the ledger has another format")]
    Format,
}

/// Reads the ledger of a running or dead edge.
///
/// # Errors
/// `Io`: no edge has run with this state folder, or the file can't be read. `Format`: it is of another version.
pub fn read(path: &Path) -> Result<LedgerSnapshot, LedgerError> {
    let map = WordMap::new(&File::open(path)?, WORDS, false)?;
    check_format(map.words())?;
    Ok(snapshot(map.words()))
}

/// The ledger as its owner writes it.
#[derive(Debug)]
pub(crate) struct Ledger {
    map: WordMap,
}

/// A place of the ledger; stays valid while the revision is served or has requests in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SlotRef(u32);

impl SlotRef {
    pub(crate) const UNROUTED: Self = Self(UNROUTED as u32);
}

impl Ledger {
    /// Opens or makes the ledger and accounts what an earlier edge left in flight as cut. Returns how many those were.
    ///
    /// A file of another format is replaced: counting must go on.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, u64)> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let bytes = (WORDS * 8) as u64;
        if file.metadata()?.len() != bytes {
            file.set_len(0)?;
            // Reserve now: a full disk is an error here, and a SIGBUS at the first store into a hole.
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        }
        let ledger = Self { map: WordMap::new(&file, WORDS, true)? };
        if check_format(ledger.map.words()).is_err() {
            for word in ledger.map.words() {
                word.store(0, Ordering::Relaxed);
            }
            for (at, value) in [MAGIC, VERSION, LEDGER_SLOTS as u64].into_iter().enumerate() {
                ledger.map.words()[at].store(value, Ordering::Relaxed);
            }
        }
        ledger.map.words()[GENERATION].fetch_add(1, Ordering::Relaxed);
        let cut = ledger.settle_what_was_cut();
        Ok((ledger, cut))
    }

    fn settle_what_was_cut(&self) -> u64 {
        let mut total = 0;
        for slot in (0..LEDGER_SLOTS).map(|slot| SlotRef(slot as u32)) {
            // An odd number: the edge died while it was writing this key.
            if self.words(slot)[0].load(Ordering::Relaxed) & 1 == 1 {
                self.clear(slot);
            }
            let in_flight = self.counts(slot).in_flight();
            self.add(slot, Counter::Cut, in_flight);
            self.add(slot, Counter::Ended, in_flight);
            total += in_flight;
        }
        total
    }

    pub(crate) fn count(&self, slot: SlotRef, counter: Counter) {
        self.add(slot, counter, 1);
    }

    fn add(&self, slot: SlotRef, counter: Counter, by: u64) {
        self.words(slot)[COUNTERS_AT + counter as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped_log_lines(&self, lines: u64) {
        self.map.words()[LOG_DROPPED].fetch_add(lines, Ordering::Relaxed);
    }

    /// The highest fence, kept here a second time for the case that the table is damaged.
    pub(crate) fn fence(&self) -> Fence {
        let word = |at: usize| self.map.words()[at].load(Ordering::SeqCst);
        Fence { term: Term(word(FENCE_TERM)), position: Position(word(FENCE_POSITION)) }
    }

    pub(crate) fn put_fence(&self, fence: Fence) {
        self.map.words()[FENCE_TERM].store(fence.term.0, Ordering::SeqCst);
        self.map.words()[FENCE_POSITION].store(fence.position.0, Ordering::SeqCst);
    }

    pub(crate) fn snapshot(&self) -> LedgerSnapshot {
        snapshot(self.map.words())
    }

    /// Returns the slot of a revision, taking a free one, then one that is not `needed` and has nothing in flight.
    ///
    /// Callers hold the lock of the route table: slots are given out by one thread at a time.
    pub(crate) fn slot(
        &self,
        env: &EnvKey,
        service: &ServiceName,
        revision: RevisionNumber,
        needed: &dyn Fn(SlotRef) -> bool,
    ) -> SlotRef {
        let key = key_words(env, service);
        let keyed = || (FIRST_KEYED..LEDGER_SLOTS).map(|slot| SlotRef(slot as u32));
        let holds = |slot: SlotRef| {
            let words = self.words(slot);
            words[0].load(Ordering::Relaxed) != 0
                && words[1].load(Ordering::Relaxed) == revision.0
                && key.iter().zip(&words[KEY_AT..]).all(|(a, b)| *a == b.load(Ordering::Relaxed))
        };
        if let Some(slot) = keyed().find(|slot| holds(*slot)) {
            return slot;
        }
        let free = keyed().find(|slot| self.words(*slot)[0].load(Ordering::Relaxed) == 0);
        // The oldest revisions are the least likely to be asked about.
        let stale = || {
            keyed()
                .filter(|slot| !needed(*slot) && self.counts(*slot).in_flight() == 0)
                .min_by_key(|slot| self.words(*slot)[1].load(Ordering::Relaxed))
        };
        let Some(slot) = free.or_else(stale) else { return SlotRef(OVERFLOW as u32) };
        self.take(slot, revision, &key);
        slot
    }

    fn take(&self, slot: SlotRef, revision: RevisionNumber, key: &[u64; KEY_WORDS]) {
        self.clear(slot);
        let words = self.words(slot);
        let state = words[0].load(Ordering::Relaxed);
        words[0].store(state | 1, Ordering::SeqCst);
        words[1].store(revision.0, Ordering::SeqCst);
        for (word, value) in words[KEY_AT..].iter().zip(key) {
            word.store(*value, Ordering::SeqCst);
        }
        words[0].store((state | 1) + 1, Ordering::SeqCst);
    }

    /// Folds the counts of a slot into [`EARLIER`] and frees it, leaving its change number.
    fn clear(&self, slot: SlotRef) {
        let words = self.words(slot);
        let changing = words[0].load(Ordering::Relaxed) | 1;
        words[0].store(changing, Ordering::SeqCst);
        let earlier = self.words(SlotRef(EARLIER as u32));
        for at in COUNTERS_AT..COUNTERS_AT + COUNTERS {
            earlier[at].fetch_add(words[at].swap(0, Ordering::SeqCst), Ordering::SeqCst);
        }
        for word in &words[KEY_AT..] {
            word.store(0, Ordering::SeqCst);
        }
    }

    fn counts(&self, slot: SlotRef) -> Counts {
        counts(self.words(slot))
    }

    fn words(&self, slot: SlotRef) -> &[AtomicU64] {
        slot_words(self.map.words(), slot.0 as usize)
    }
}

fn check_format(words: &[AtomicU64]) -> Result<(), LedgerError> {
    let expected = [MAGIC, VERSION, LEDGER_SLOTS as u64];
    let same = expected.iter().zip(words).all(|(want, word)| word.load(Ordering::Relaxed) == *want);
    if same { Ok(()) } else { Err(LedgerError::Format) }
}

fn slot_words(words: &[AtomicU64], slot: usize) -> &[AtomicU64] {
    &words[HEADER_WORDS + slot * SLOT_WORDS..][..SLOT_WORDS]
}

fn counts(words: &[AtomicU64]) -> Counts {
    let mut loaded = [0; COUNTERS];
    // From the last to the first: what ended is read before what began, so that the difference is never below zero.
    for at in (0..COUNTERS).rev() {
        loaded[at] = words[COUNTERS_AT + at].load(Ordering::SeqCst);
    }
    Counts::from_words(loaded)
}

fn snapshot(words: &[AtomicU64]) -> LedgerSnapshot {
    let load = |at: usize| words[at].load(Ordering::Relaxed);
    let of = |slot: usize| counts(slot_words(words, slot));
    let mut rows: Vec<LedgerRow> =
        (FIRST_KEYED..LEDGER_SLOTS).filter_map(|slot| row(slot_words(words, slot))).collect();
    rows.sort_by(|a, b| (&a.env, &a.service, a.revision).cmp(&(&b.env, &b.service, b.revision)));
    LedgerSnapshot {
        starts: load(GENERATION),
        log_lines_dropped: load(LOG_DROPPED),
        rows,
        earlier: of(EARLIER),
        unrouted: of(UNROUTED),
        overflow: of(OVERFLOW),
    }
}

/// Reads a slot; nothing if it is free or is being given to another revision right now.
fn row(words: &[AtomicU64]) -> Option<LedgerRow> {
    let state = words[0].load(Ordering::SeqCst);
    if state == 0 || state & 1 == 1 {
        return None;
    }
    let revision = RevisionNumber(words[1].load(Ordering::SeqCst));
    let counts = counts(words);
    let mut key = [0; KEY_WORDS];
    for (value, word) in key.iter_mut().zip(&words[KEY_AT..]) {
        *value = word.load(Ordering::SeqCst);
    }
    let unchanged = words[0].load(Ordering::SeqCst) == state;
    let (env, service) = parse_key(&key).filter(|_| unchanged)?;
    Some(LedgerRow { env, service, revision, counts })
}

pub(crate) fn key_words(env: &EnvKey, service: &ServiceName) -> [u64; KEY_WORDS] {
    let mut bytes = [0_u8; KEY_WORDS * 8];
    for (place, name) in [env.stack.as_str(), env.env.as_str(), service.as_str()].into_iter().enumerate() {
        let at = place * NAME_BYTES;
        bytes[at] = name.len() as u8;
        bytes[at + 1..at + 1 + name.len()].copy_from_slice(name.as_bytes());
    }
    std::array::from_fn(|i| u64::from_le_bytes(bytes[i * 8..][..8].try_into().expect("a slice of 8 bytes")))
}

fn parse_key(words: &[u64; KEY_WORDS]) -> Option<(EnvKey, ServiceName)> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let name = |place: usize| {
        let field = &bytes[place * NAME_BYTES..][..NAME_BYTES];
        std::str::from_utf8(field.get(1..1 + usize::from(field[0]))?).ok()
    };
    let env = EnvKey { stack: StackName::new(name(0)?).ok()?, env: EnvName::new(name(1)?).ok()? };
    Some((env, ServiceName::new(name(2)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> EnvKey {
        EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new(name).unwrap() }
    }

    fn web() -> ServiceName {
        ServiceName::new("web").unwrap()
    }

    fn open(folder: &tempfile::TempDir) -> (Ledger, u64) {
        Ledger::open(&folder.path().join("ledger")).unwrap()
    }

    #[test]
    fn what_was_in_flight_at_the_end_of_a_process_is_cut_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        let slot = ledger.slot(&env("prod"), &web(), RevisionNumber(7), &|_| true);
        for _ in 0..5 {
            ledger.count(slot, Counter::Begun);
        }
        ledger.count(slot, Counter::Ended);
        ledger.count(slot, Counter::Answered);
        drop(ledger);
        let (ledger, cut) = open(&folder);
        assert_eq!(cut, 4);
        let read = read(&folder.path().join("ledger")).unwrap();
        assert_eq!(read, ledger.snapshot());
        let counts = Counts { begun: 5, ended: 5, answered: 1, cut: 4, ..Counts::default() };
        let row = LedgerRow { env: env("prod"), service: web(), revision: RevisionNumber(7), counts };
        assert_eq!((read.starts, &read.rows), (2, &vec![row]));
        assert_eq!(read.total_of(&env("prod"), None).lost(), 4);
        drop(ledger);
        assert_eq!(open(&folder).1, 0, "what was accounted once is not accounted again");
    }

    #[test]
    fn a_revision_keeps_its_slot_and_a_needed_slot_is_never_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        let slot = |number, needed: &dyn Fn(SlotRef) -> bool| {
            ledger.slot(&env("prod"), &web(), RevisionNumber(number), needed)
        };
        let first = slot(1, &|_| true);
        ledger.count(first, Counter::Begun);
        ledger.count(first, Counter::Ended);
        ledger.count(first, Counter::Answered);
        for number in 2..=(LEDGER_SLOTS - FIRST_KEYED) as u64 {
            slot(number, &|_| true);
        }
        assert_eq!(slot(1, &|_| true), first);
        assert_eq!(slot(9999, &|_| true), SlotRef(OVERFLOW as u32));
        assert_eq!(slot(9999, &|slot| slot != first), first);
        let now = ledger.snapshot();
        assert_eq!(now.earlier.answered, 1);
        assert_eq!(now.total().begun, 1);
        assert_eq!(now.rows.last().unwrap().revision, RevisionNumber(9999));
    }

    #[test]
    fn a_slot_with_requests_in_flight_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        for number in 1..=(LEDGER_SLOTS - FIRST_KEYED) as u64 {
            let slot = ledger.slot(&env("prod"), &web(), RevisionNumber(number), &|_| true);
            ledger.count(slot, Counter::Begun);
        }
        let slot = ledger.slot(&env("prod"), &web(), RevisionNumber(9999), &|_| false);
        assert_eq!(slot, SlotRef(OVERFLOW as u32));
    }

    #[test]
    fn another_file_is_refused_by_a_reader_and_replaced_by_the_edge() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, vec![7; WORDS * 8]).unwrap();
        assert!(matches!(read(&path), Err(LedgerError::Format)));
        std::fs::write(&path, b"short").unwrap();
        assert!(matches!(read(&path), Err(LedgerError::Io(_))));
        assert_eq!(open(&folder).1, 0);
        assert_eq!(read(&path).unwrap().total(), Counts::default());
    }

    #[test]
    fn the_layout_is_stable() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, _) = open(&folder);
        let slot = ledger.slot(&env("prod"), &web(), RevisionNumber(42), &|_| true);
        ledger.count(slot, Counter::Retried);
        ledger.put_fence(Fence { term: Term(3), position: Position(9) });
        let bytes = std::fs::read(folder.path().join("ledger")).unwrap();
        let word = |at: usize| u64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
        assert_eq!(bytes.len(), 4096 + 1024 * 256);
        assert_eq!(&bytes[..8], b"KILNLEDG");
        assert_eq!([word(1), word(2), word(3), word(4), word(5)], [1, 1024, 1, 3, 9]);
        let at = 512 + 3 * 32;
        assert_eq!([word(at), word(at + 1), word(at + 2 + 8)], [2, 42, 1]);
        assert_eq!(&bytes[(at + 16) * 8..][..5], b"\x04shop");
        assert_eq!(&bytes[(at + 16) * 8 + 41..][..5], b"\x04prod");
        assert_eq!(&bytes[(at + 16) * 8 + 82..][..4], b"\x03web");
    }
}
