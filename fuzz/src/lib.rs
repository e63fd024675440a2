//! Mutated inputs for parsers of outside bytes: a [`Target`] is an ordinary test, which replays its corpus and a few mutations,
//! and fuzzes for as long as `KILN_FUZZ_SECONDS` says. `cargo xtask fuzz` runs all of them that way.
//!
//! What is absent: coverage. An input is interesting when the parser says something about it that it did not say before.
// A target tells what it does, as a test and to `cargo xtask fuzz`.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod mutate;
mod pool;
mod random;
mod tape;
mod watch;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pool::Pool;
use random::Random;
pub use tape::with_checksums;
use watch::Watch;

/// How long to fuzz; without it a target is a test of its corpus.
const SECONDS: &str = "KILN_FUZZ_SECONDS";

/// The seed of a run that is to be repeated.
const SEED: &str = "KILN_FUZZ_SEED";

/// Mutations in an ordinary test: enough to see that the target works.
const TEST_CASES: usize = 200;

/// Attempts at making a found input shorter. A second or two, for most parsers.
const SHORTER_MAX: usize = 5_000;

/// Inputs up to this size are printed as well: where CI ran, the file is gone.
const PRINTED_BYTES_MAX: usize = 4 << 10;

/// A parser, and what to try it with.
pub struct Target {
    name: &'static str,
    folder: PathBuf,
    seeds: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
}

impl Target {
    /// Begins a target of a crate: its corpus is the files of `fuzz/NAME` in the crate's folder, `CARGO_MANIFEST_DIR`.
    pub fn new(crate_folder: &str, name: &'static str) -> Self {
        let folder = Path::new(crate_folder).join("fuzz").join(name);
        Self { name, folder, seeds: Vec::new(), words: Vec::new() }
    }

    /// Adds a seed that a test makes.
    #[must_use]
    pub fn seed(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.seeds.push(bytes.into());
        self
    }

    /// Adds files of another folder as seeds, but for those whose names hold a word.
    #[must_use]
    pub fn seeds_of(mut self, folder: impl AsRef<Path>, except: &str) -> Self {
        let is_taken = |path: &Path| except.is_empty() || !path.to_string_lossy().contains(except);
        let files = files(folder.as_ref()).into_iter().filter(|(path, _)| is_taken(path));
        self.seeds.extend(files.map(|(_, bytes)| bytes));
        self
    }

    /// Adds words that mutations put in.
    #[must_use]
    pub fn words<W: AsRef<[u8]>>(mut self, words: &[W]) -> Self {
        self.words.extend(words.iter().map(|word| word.as_ref().to_vec()));
        self
    }

    /// Tries the parser: it must neither panic, nor abort, nor run without end, nor take memory without bounds.
    ///
    /// What it returns says what it made of its input, an error's text for instance. An input about which something new is
    /// said is mutated further.
    ///
    /// # Panics
    /// An input was found. It is written beside the corpus, so that it is tried by every test from then on.
    pub fn run(self, parse: impl Fn(&[u8]) -> String) {
        let corpus = files(&self.folder);
        for (path, bytes) in &corpus {
            let said = catch_unwind(AssertUnwindSafe(|| parse(bytes)));
            assert!(said.is_ok(), "{} makes it panic", path.display());
        }
        let variable = |name: &str| std::env::var(name).ok().map(|text| (name.to_owned(), text));
        let number = |(name, text): (String, String)| -> u64 {
            text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
        };
        let seconds = variable(SECONDS).map(number);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let seed = variable(SEED).map(number).unwrap_or(if seconds.is_some() { now } else { 1 });
        let seeds = corpus.into_iter().map(|(_, bytes)| bytes).chain(self.seeds.iter().cloned());
        let pool = Pool::new(seeds.collect(), self.words.clone());
        assert!(!pool.is_empty(), "{} has no corpus in {}", self.name, self.folder.display());
        let run = Run { target: &self, parse: &parse, random: Random::new(seed), pool };
        match seconds {
            None => run.test(),
            Some(seconds) => {
                println!("{}: {seconds} s with {SEED}={seed}", self.name);
                run.fuzz(Duration::from_secs(seconds));
            }
        }
    }
}

struct Run<'a, P> {
    target: &'a Target,
    parse: &'a P,
    random: Random,
    pool: Pool,
}

impl<P: Fn(&[u8]) -> String> Run<'_, P> {
    fn test(mut self) {
        for _ in 0..TEST_CASES {
            let input = mutate::mutate(&mut self.random, &self.pool);
            self.attempt(input);
        }
    }

    fn fuzz(mut self, time: Duration) {
        let watch = Watch::start(self.target.name, &self.target.folder);
        let (start, mut cases, begun) = (Instant::now(), 0_u64, self.pool.len());
        while start.elapsed() < time {
            let input = mutate::mutate(&mut self.random, &self.pool);
            watch.begin(&input);
            self.attempt(input);
            cases += 1;
        }
        watch.end();
        println!(
            "{}: {cases} inputs, {} of them with something new to say beside the {begun} of the corpus",
            self.target.name,
            self.pool.len() - begun
        );
    }

    fn attempt(&mut self, input: Vec<u8>) {
        match catch_unwind(AssertUnwindSafe(|| (self.parse)(&input))) {
            Ok(said) => self.pool.learn(input, &said),
            Err(panic) => self.found(input, &*panic),
        }
    }

    fn found(&self, input: Vec<u8>, panic: &(dyn Any + Send)) -> ! {
        let input = self.shorten(input);
        let path = keep(&self.target.folder, &input);
        if input.len() <= PRINTED_BYTES_MAX {
            eprintln!("the input: b\"{}\"", input.escape_ascii());
        }
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        panic!("{} panics for {}: {message}", self.target.name, path.display());
    }

    /// Takes away what the panic does not need.
    fn shorten(&self, mut input: Vec<u8>) -> Vec<u8> {
        std::panic::set_hook(Box::new(|_| ()));
        let (mut length, mut attempts) = (input.len() / 2, 0);
        while length > 0 && attempts < SHORTER_MAX {
            let mut at = 0;
            while at < input.len() && attempts < SHORTER_MAX {
                let mut shorter = input.clone();
                shorter.drain(at..(at + length).min(input.len()));
                attempts += 1;
                match catch_unwind(AssertUnwindSafe(|| (self.parse)(&shorter))) {
                    Err(_) => input = shorter,
                    Ok(_) => at += length,
                }
            }
            length /= 2;
        }
        drop(std::panic::take_hook());
        input
    }
}

/// Keeps an input in the corpus.
fn keep(folder: &Path, input: &[u8]) -> PathBuf {
    let path = folder.join(format!("found-{:016x}", random::hash(input)));
    let kept = fs::create_dir_all(folder).and_then(|()| fs::write(&path, input));
    if let Err(error) = kept {
        eprintln!("{} can't be written: {error}", path.display());
    }
    path
}

/// The files of a folder, in the order of their names, so that the same seed does the same.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes))).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Fails for an input with `<!` that is followed by a `9`.
    fn fragile(bytes: &[u8]) -> String {
        let tag = bytes.windows(2).position(|pair| pair == b"<!");
        let tag = tag.map(|at| &bytes[at + 2..]);
        assert!(!tag.is_some_and(|rest| rest.contains(&b'9')), "a nine");
        format!("{:?}", tag.is_some())
    }

    #[test]
    fn a_panic_is_found_shortened_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let target = || {
            Target::new(folder.path().to_str().unwrap(), "fragile")
                .seed("<a>some words</a>")
                .words(&["<!", "9"])
        };
        let pool = Pool::new(vec![b"<a>some words</a>".to_vec()], target().words);
        let target = target();
        let mut run = Run { target: &target, parse: &fragile, random: Random::new(7), pool };
        let panic = catch_unwind(AssertUnwindSafe(|| {
            for _ in 0..100_000 {
                let input = mutate::mutate(&mut run.random, &run.pool);
                run.attempt(input);
            }
        }));
        assert!(panic.unwrap_err().downcast_ref::<String>().unwrap().contains("a nine"));
        let found = files(&folder.path().join("fuzz/fragile"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, b"<!9");
        // From then on it is a test.
        let again = catch_unwind(AssertUnwindSafe(|| target.run(fragile)));
        assert!(again.unwrap_err().downcast_ref::<String>().unwrap().contains("makes it panic"));
    }

    #[test]
    fn the_same_seed_makes_the_same_inputs() {
        let inputs = |seed| {
            let (mut random, pool) = (Random::new(seed), Pool::new(vec![vec![1; 100]], vec![b"x".to_vec()]));
            (0..50).map(|_| mutate::mutate(&mut random, &pool)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(3), inputs(3));
        assert_ne!(inputs(3), inputs(4));
    }

    #[test]
    fn what_is_said_for_the_first_time_is_learnt() {
        let mut pool = Pool::new(vec![b"a".to_vec()], Vec::new());
        pool.learn(b"b".to_vec(), "line 3 is wrong");
        pool.learn(b"c".to_vec(), "line 47 is wrong");
        pool.learn(b"d".to_vec(), "there is no `x`");
        pool.learn(b"e".to_vec(), "there is no `longer name`");
        assert_eq!(pool.len(), 3);
    }
}
