//! What became of the requests of canary rollouts, for their analysis, in memory that outlives the process.
//!
//! As with the [ledger](crate::ledger), the counts lie in a shared mapping of a file: a SIGKILL loses none of them. One that
//! comes between the two additions for an answer leaves its latency out, and nothing is counted twice.
//!
//! Layout, version 1, in native 64-bit words: a header of 512 words, then 64 slots of 5120 words, each a window of a
//! service. A slot's part of the file is reserved when the slot is first taken.
//!
//! | words of the header | |
//! |---|---|
//! | 0, 1, 2 | `KILNSAMP`, version, number of slots |
//! | 3 | how often a table named a window |
//!
//! | words of a slot | |
//! |---|---|
//! | 0 | 0 free, odd while the key changes, else even; another number for every window |
//! | 1, 2 | rollout, window |
//! | 3 | word 3 of the header when a table last named it |
//! | 16..32 | stack, environment, service: each a length byte and 40 bytes |
//! | 64.. | for stable, baseline and canary, 1617 words each: 16 counters, then latencies by bucket |
//!
//! The counters are `ok, client_error, server_error, lost, broken, left`, of copies `answered, differed, lost, skipped`, and
//! `synthetic`; the rest is unused.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_model::latency::{BUCKETS, bucket};
use kiln_model::route::{Group, Sampling};
use kiln_model::sample::{GroupSamples, MirrorSamples, WindowSamples};
use kiln_model::{EnvKey, ServiceName};
use rustix::fs::{FallocateFlags, fallocate};

use crate::ledger::{KEY_WORDS, key_words};
use crate::limits::SAMPLE_SLOTS;
use crate::sys::WordMap;

const MAGIC: u64 = u64::from_le_bytes(*b"KILNSAMP");
const VERSION: u64 = 1;
const HEADER_WORDS: usize = 512;
const NAMED: usize = 3;

/// Whole pages, so that reserving one slot leaves its neighbours alone.
const SLOT_WORDS: usize = 5120;
const KEY_AT: usize = 16;
const GROUPS_AT: usize = 64;
const COUNTERS: usize = 16;
const GROUP_WORDS: usize = COUNTERS + BUCKETS;
const WORDS: usize = HEADER_WORDS + SAMPLE_SLOTS * SLOT_WORDS;

const _: () = assert!(GROUPS_AT + Group::ALL.len() * GROUP_WORDS <= SLOT_WORDS, "the groups fit in a slot");

/// One of the counters of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counter {
    Ok,
    ClientError,
    ServerError,
    Lost,
    Broken,
    Left,
    Mirrored,
    Differed,
    MirrorLost,
    MirrorSkipped,
    Synthetic,
}

impl Counter {
    /// The counter for an answer's status.
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Ok,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// A group of a window. What comes for it after its slot was given to another window is not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SampleRef {
    slot: usize,
    group: Group,
    number: u64,
}

/// A window's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct WindowRef {
    slot: usize,
    number: u64,
}

impl WindowRef {
    pub(crate) fn group(self, group: Group) -> SampleRef {
        SampleRef { slot: self.slot, group, number: self.number }
    }
}

/// Which window of which service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WindowKey<'a> {
    pub(crate) env: &'a EnvKey,
    pub(crate) service: &'a ServiceName,
    pub(crate) sampling: Sampling,
}

/// The counts of all windows.
#[derive(Debug)]
pub(crate) struct Samples {
    file: File,
    map: WordMap,
}

impl Samples {
    /// Opens or makes the file. One of another format is replaced.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let bytes = (WORDS * 8) as u64;
        let is_sound = file.metadata()?.len() == bytes
            && WordMap::new(&file, HEADER_WORDS, false).is_ok_and(|map| has_format(map.words()));
        if !is_sound {
            file.set_len(0)?;
            fallocate(&file, FallocateFlags::empty(), 0, (HEADER_WORDS * 8) as u64)?;
            file.set_len(bytes)?;
        }
        let samples = Self { map: WordMap::new(&file, WORDS, true)?, file };
        for (at, value) in [MAGIC, VERSION, SAMPLE_SLOTS as u64].into_iter().enumerate() {
            samples.map.words()[at].store(value, Ordering::Relaxed);
        }
        for slot in 0..SAMPLE_SLOTS {
            let state = &samples.slot(slot)[0];
            // An odd number: the edge died while it was writing this key.
            if state.load(Ordering::Relaxed) & 1 == 1 {
                samples.clear(slot);
            }
        }
        Ok(samples)
    }

    /// Returns the slot of a window, taking a free one, then the one of those that are not `needed` that was named least
    /// recently. None when all are needed, or when the disk has no room: then nothing is counted.
    ///
    /// Callers hold the lock of the route table: slots are given out by one thread at a time.
    pub(crate) fn window(&self, key: WindowKey<'_>, needed: &dyn Fn(WindowRef) -> bool) -> Option<WindowRef> {
        let at = self.find(key).or_else(|| self.take(key, needed))?;
        let named = self.map.words()[NAMED].fetch_add(1, Ordering::Relaxed) + 1;
        self.slot(at.slot)[NAMED].store(named, Ordering::Relaxed);
        Some(at)
    }

    fn find(&self, key: WindowKey<'_>) -> Option<WindowRef> {
        let wanted = name_of(key);
        (0..SAMPLE_SLOTS).find_map(|slot| {
            let words = self.slot(slot);
            let number = words[0].load(Ordering::SeqCst);
            let is_it = number != 0
                && number & 1 == 0
                && wanted.iter().all(|(at, value)| words[*at].load(Ordering::SeqCst) == *value);
            is_it.then_some(WindowRef { slot, number })
        })
    }

    fn take(&self, key: WindowKey<'_>, needed: &dyn Fn(WindowRef) -> bool) -> Option<WindowRef> {
        let is_ours_to_take = |slot: &usize| {
            let number = self.slot(*slot)[0].load(Ordering::Relaxed);
            let is_free = number == 0 || number & 1 == 1;
            is_free || !needed(WindowRef { slot: *slot, number })
        };
        let slot = (0..SAMPLE_SLOTS)
            .filter(is_ours_to_take)
            .min_by_key(|slot| self.slot(*slot)[NAMED].load(Ordering::Relaxed))?;
        let (at, bytes) = ((HEADER_WORDS + slot * SLOT_WORDS) * 8, SLOT_WORDS * 8);
        // A full disk is an error here, and a SIGBUS at the first store into a hole.
        fallocate(&self.file, FallocateFlags::empty(), at as u64, bytes as u64).ok()?;
        self.clear(slot);
        let words = self.slot(slot);
        let changing = words[0].load(Ordering::Relaxed);
        for (at, value) in name_of(key) {
            words[at].store(value, Ordering::SeqCst);
        }
        words[0].store(changing + 1, Ordering::SeqCst);
        Some(WindowRef { slot, number: changing + 1 })
    }

    /// Empties a slot and leaves it with an odd number.
    fn clear(&self, slot: usize) {
        let words = self.slot(slot);
        let changing = words[0].load(Ordering::Relaxed) | 1;
        words[0].store(changing, Ordering::SeqCst);
        words[1..].iter().for_each(|word| word.store(0, Ordering::SeqCst));
    }

    /// Counts an answer that began.
    pub(crate) fn answered(&self, at: SampleRef, status: u16, after: Duration) {
        let Some(words) = self.group(at) else { return };
        words[Counter::of_status(status) as usize].fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        // Released after the outcome: who sees this latency sees its outcome too.
        words[COUNTERS + bucket(us)].fetch_add(1, Ordering::Release);
    }

    /// Counts what came of an attempt without an answer, or of an answer after it began.
    pub(crate) fn count(&self, at: SampleRef, counter: Counter) {
        if let Some(words) = self.group(at) {
            words[counter as usize].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many attempts have an outcome, and how many of them the edge made itself; none if the slot was given to
    /// another window.
    pub(crate) fn attempts(&self, at: SampleRef) -> Option<(u64, u64)> {
        let words = self.group(at)?;
        let load = |counter: Counter| words[counter as usize].load(Ordering::Relaxed);
        // Before the outcomes: there are never more of them.
        let made = load(Counter::Synthetic);
        let all = [Counter::Ok, Counter::ClientError, Counter::ServerError, Counter::Lost, Counter::Left];
        Some((all.map(load).iter().sum(), made))
    }

    /// Reads a window; none if it has no slot.
    pub(crate) fn read(&self, key: WindowKey<'_>) -> Option<WindowSamples> {
        let at = self.find(key)?;
        let groups = Group::ALL.into_iter().map(|group| (group, self.group(at.group(group))));
        let read =
            groups.map(|(group, words)| Some((group, group_samples(words?)))).collect::<Option<_>>()?;
        // Else it was given to another window meanwhile.
        (self.find(key) == Some(at)).then_some(read)
    }

    fn group(&self, at: SampleRef) -> Option<&[AtomicU64]> {
        let words = self.slot(at.slot);
        let from = GROUPS_AT + at.group as usize * GROUP_WORDS;
        (words[0].load(Ordering::Relaxed) == at.number).then(|| &words[from..][..GROUP_WORDS])
    }

    fn slot(&self, slot: usize) -> &[AtomicU64] {
        &self.map.words()[HEADER_WORDS + slot * SLOT_WORDS..][..SLOT_WORDS]
    }
}

fn has_format(words: &[AtomicU64]) -> bool {
    let expected = [MAGIC, VERSION, SAMPLE_SLOTS as u64];
    expected.iter().zip(words).all(|(want, word)| word.load(Ordering::Relaxed) == *want)
}

/// The words of a slot that say whose it is, with their places.
fn name_of(key: WindowKey<'_>) -> [(usize, u64); 2 + KEY_WORDS] {
    let names = key_words(key.env, key.service);
    std::array::from_fn(|at| match at {
        0 => (1, key.sampling.rollout.0),
        1 => (2, u64::from(key.sampling.window)),
        _ => (KEY_AT + at - 2, names[at - 2]),
    })
}

/// Latencies first: each has its outcome, so there are never more of them than answers.
fn group_samples(words: &[AtomicU64]) -> GroupSamples {
    let latencies = words[COUNTERS..].iter().map(|word| word.load(Ordering::Acquire)).enumerate();
    let latency = latencies.filter(|(_, count)| *count > 0).collect();
    let load = |counter: Counter| words[counter as usize].load(Ordering::SeqCst);
    // Before those that they are a part of.
    let (broken, differed) = (load(Counter::Broken), load(Counter::Differed));
    let synthetic = load(Counter::Synthetic);
    GroupSamples {
        ok: load(Counter::Ok),
        client_error: load(Counter::ClientError),
        server_error: load(Counter::ServerError),
        lost: load(Counter::Lost),
        broken,
        left: load(Counter::Left),
        latency,
        synthetic,
        mirror: MirrorSamples {
            answered: load(Counter::Mirrored),
            differed,
            lost: load(Counter::MirrorLost),
            skipped: load(Counter::MirrorSkipped),
        },
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{EnvName, RolloutId, StackName};

    use super::*;

    const LATE: Duration = Duration::from_micros(1000);

    struct World {
        folder: tempfile::TempDir,
        env: EnvKey,
        service: ServiceName,
    }

    impl World {
        fn new() -> Self {
            let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() };
            Self { folder: tempfile::tempdir().unwrap(), env, service: ServiceName::new("web").unwrap() }
        }

        fn path(&self) -> std::path::PathBuf {
            self.folder.path().join("samples")
        }

        fn open(&self) -> Samples {
            Samples::open(&self.path()).unwrap()
        }

        fn key(&self, window: u32) -> WindowKey<'_> {
            let sampling = Sampling { rollout: RolloutId(90), window };
            WindowKey { env: &self.env, service: &self.service, sampling }
        }
    }

    #[test]
    fn a_window_goes_on_counting_after_the_edge_was_killed() {
        let world = World::new();
        for life in 1..=2 {
            let samples = world.open();
            let canary = samples.window(world.key(1), &|_| true).unwrap().group(Group::Canary);
            for status in [200, 304, 404, 500] {
                samples.answered(canary, status, LATE);
            }
            for counter in [Counter::Lost, Counter::Broken, Counter::Left, Counter::Synthetic] {
                samples.count(canary, counter);
            }
            for counter in [Counter::Mirrored, Counter::Differed, Counter::MirrorLost, Counter::MirrorSkipped]
            {
                samples.count(canary, counter);
            }
            let expected = GroupSamples {
                ok: 2 * life,
                client_error: life,
                server_error: life,
                lost: life,
                broken: life,
                left: life,
                latency: [(bucket(1000), 4 * life)].into(),
                synthetic: life,
                mirror: MirrorSamples { answered: life, differed: life, lost: life, skipped: life },
            };
            let read = samples.read(world.key(1)).unwrap();
            assert_eq!(read[&Group::Canary], expected);
            assert_eq!((expected.requests(), expected.failures()), (5 * life, 3 * life));
            assert_eq!(read[&Group::Baseline], GroupSamples::default());
            assert_eq!(samples.read(world.key(2)), None);
        }
    }

    #[test]
    fn the_window_named_least_recently_gives_way_and_a_needed_one_never() {
        let world = World::new();
        let samples = world.open();
        let take = |window, needed: &dyn Fn(WindowRef) -> bool| samples.window(world.key(window), needed);
        let first = take(0, &|_| true).unwrap();
        for window in 1..SAMPLE_SLOTS as u32 {
            take(window, &|_| true).unwrap();
        }
        assert_eq!(take(0, &|_| true), Some(first), "it keeps its slot");
        assert_eq!(take(1000, &|_| true), None);
        let second = samples.find(world.key(1)).unwrap();
        let late = second.group(Group::Stable);
        samples.count(late, Counter::Ok);
        assert_eq!(take(1000, &|_| false).unwrap().slot, second.slot);
        assert_eq!(samples.read(world.key(1)), None);
        samples.count(late, Counter::Ok);
        let now = samples.read(world.key(1000)).unwrap();
        assert!(now.values().all(|group| *group == GroupSamples::default()), "{now:?}");
    }

    #[test]
    fn a_key_that_was_not_written_to_its_end_is_nobodys() {
        let world = World::new();
        let samples = world.open();
        let window = samples.window(world.key(1), &|_| true).unwrap();
        samples.count(window.group(Group::Stable), Counter::Ok);
        samples.clear(window.slot);
        assert_eq!(samples.read(world.key(1)), None);
        drop(samples);
        let samples = world.open();
        let again = samples.window(world.key(1), &|_| true).unwrap();
        assert_ne!(again.number, window.number);
        assert_eq!(samples.read(world.key(1)).unwrap()[&Group::Stable], GroupSamples::default());
    }

    #[test]
    fn another_file_is_replaced() {
        let world = World::new();
        for other in [vec![7; WORDS * 8], b"short".to_vec()] {
            std::fs::write(world.path(), other).unwrap();
            let samples = world.open();
            assert_eq!(samples.read(world.key(1)), None);
            samples.window(world.key(1), &|_| true).unwrap();
        }
    }

    #[test]
    fn the_layout_is_stable_and_takes_room_only_for_what_is_counted() {
        use std::os::unix::fs::MetadataExt;
        let world = World::new();
        let samples = world.open();
        let stored = || std::fs::metadata(world.path()).unwrap().blocks() * 512;
        assert!(stored() < 64 << 10, "{}", stored());
        let window = samples.window(world.key(3), &|_| true).unwrap();
        assert!((40 << 10..128 << 10).contains(&stored()), "{}", stored());
        samples.answered(window.group(Group::Canary), 404, LATE);
        let bytes = std::fs::read(world.path()).unwrap();
        let word = |at: usize| u64::from_ne_bytes(bytes[at * 8..][..8].try_into().unwrap());
        assert_eq!(bytes.len(), 4096 + 64 * 40960);
        assert_eq!(&bytes[..8], b"KILNSAMP");
        assert_eq!([word(1), word(2), word(3)], [1, 64, 1]);
        assert_eq!([word(512), word(513), word(514), word(515)], [2, 90, 3, 1]);
        assert_eq!(&bytes[(512 + 16) * 8..][..5], b"\x04shop");
        let canary = 512 + 64 + 2 * 1617;
        assert_eq!([word(canary), word(canary + 1), word(canary + 16 + bucket(1000))], [0, 1, 1]);
    }
}
