//! What a parser does that no test can catch: it aborts, or does not come back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};

/// An input of 64 KiB takes milliseconds. A minute is no slow machine any more.
const HANG: Duration = Duration::from_secs(60);

/// What a fuzzed process may map. The largest of what parsers are allowed to, an xz window, has 256 MiB.
const MEMORY_BYTES_MAX: u64 = 2 << 30;

/// Remembers the input that is being tried, in a file that outlives an abort.
pub(crate) struct Watch {
    file: File,
    path: PathBuf,
    /// The number of the input; 0 when all is over.
    current: Arc<AtomicU64>,
}

impl Watch {
    /// Begins to watch, and limits the memory of this process.
    pub(crate) fn start(name: &'static str, folder: &Path) -> Self {
        let limit = Rlimit { current: Some(MEMORY_BYTES_MAX), maximum: Some(MEMORY_BYTES_MAX) };
        setrlimit(Resource::As, limit).expect("less memory may always be asked for");
        fs::create_dir_all(folder).expect("the corpus can be written to");
        let path = folder.join("found-aborted");
        let file = File::create(&path).expect("the corpus can be written to");
        let current = Arc::new(AtomicU64::new(1));
        let watched = Arc::clone(&current);
        let kept = path.clone();
        std::thread::spawn(move || {
            let mut last = 1;
            loop {
                std::thread::sleep(HANG);
                let now = watched.load(Ordering::Relaxed);
                if now == 0 {
                    return;
                }
                if now == last {
                    eprintln!(
                        "{name} does not end within {HANG:?}, or needs that long, for {}",
                        kept.display()
                    );
                    std::process::abort();
                }
                last = now;
            }
        });
        Self { file, path, current }
    }

    /// Remembers the input that is tried next.
    pub(crate) fn begin(&self, input: &[u8]) {
        self.current.fetch_add(1, Ordering::Relaxed);
        self.file.write_all_at(input, 0).expect("the corpus can be written to");
        self.file.set_len(input.len() as u64).expect("the corpus can be written to");
    }

    /// Nothing is tried any more.
    pub(crate) fn end(self) {
        self.current.store(0, Ordering::Relaxed);
        fs::remove_file(&self.path).expect("it was written");
    }
}
