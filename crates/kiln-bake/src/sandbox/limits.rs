//! What the steps of a bake may use of the machine, by control groups.
//!
//! A bake has one group, which holds its limits, and in it one for each step that runs. Where a controller has a tree of its
//! own (version 1), the groups are there; otherwise in the unified tree. No other group is ever touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::ByteSize;

/// A machine of a hundred cores that builds with all of them stays below it; a fork bomb ends long before the kernel's limit.
const PIDS: u32 = 4096;

/// Killed processes leave their group when they have ended, which takes a moment.
const EMPTY_WITHIN: Duration = Duration::from_secs(5);
const EMPTY_POLL: Duration = Duration::from_millis(1);

/// The limits that a bake has.
const CONTROLLERS: [&str; 2] = ["memory", "pids"];

/// What all steps that a baker runs may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Memory, with what they write to `/dev/shm`.
    pub memory: ByteSize,
    /// Processes and threads.
    pub pids: u32,
}

impl Default for StepLimits {
    /// Half of the machine's memory, so that what runs on it keeps the other half, and 4,096 processes.
    fn default() -> Self {
        let machine = rustix::system::sysinfo();
        let total = (machine.totalram as u64).saturating_mul(u64::from(machine.mem_unit));
        Self { memory: ByteSize(total / 2), pids: PIDS }
    }
}

/// The group of a bake; made with its first step, and removed with the value.
#[derive(Debug)]
pub(crate) struct Group {
    limits: StepLimits,
    /// In each tree that has a controller: the controllers and the group's folder.
    places: Vec<Place>,
    made: OnceLock<()>,
    next: AtomicU64,
}

#[derive(Debug, Clone)]
struct Place {
    controllers: Vec<&'static str>,
    unified: bool,
    folder: PathBuf,
}

impl Group {
    /// Finds the trees of this machine, and removes what dead bakes left in them.
    pub(crate) fn find(limits: StepLimits) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A pid means something in its namespace only.
        let space = fs::read_link("/proc/self/ns/pid")?;
        let space: String = space.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let prefix = format!("kiln-bake.{space}.");
        let trees = trees(&fs::read_to_string("/proc/self/mountinfo")?, |root| {
            fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default()
        });
        let name = format!("{prefix}{}.{number}", std::process::id());
        for place in &trees {
            sweep(&place.folder, &prefix);
        }
        let places =
            trees.into_iter().map(|place| Place { folder: place.folder.join(&name), ..place }).collect();
        Ok(Self { limits, places, made: OnceLock::new(), next: AtomicU64::new(0) })
    }

    /// Returns the limits.
    pub(crate) fn limits(&self) -> StepLimits {
        self.limits
    }

    /// Returns what can't be limited here, and why.
    pub(crate) fn unenforced(&self) -> Option<String> {
        let there = |name: &&str| self.places.iter().any(|place| place.controllers.contains(name));
        let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !there(name)).collect();
        if !missing.is_empty() {
            return Some(format!("no cgroup tree of this machine has the controller {}", missing.join(", ")));
        }
        self.make().err().map(|error| format!("its control groups can't be made: {error}"))
    }

    /// Makes a group for one step. Where groups can't be made it has none: [`Group::unenforced`] tells.
    pub(super) fn step(&self) -> StepGroup {
        let made = self.make().and_then(|()| {
            let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
            let mut group = StepGroup { folders: Vec::new(), join: Vec::new() };
            for place in &self.places {
                let folder = place.folder.join(&number);
                fs::create_dir(&folder)?;
                group.folders.push(folder.clone());
                if place.controllers.contains(&"pids") {
                    // So that the refusal is counted here, unless other steps have used up what there is.
                    fs::write(folder.join("pids.max"), self.limits.pids.to_string())?;
                }
                group.join.push(OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?);
            }
            Ok(group)
        });
        made.unwrap_or(StepGroup { folders: Vec::new(), join: Vec::new() })
    }

    fn make(&self) -> io::Result<()> {
        if self.made.get().is_some() {
            return Ok(());
        }
        for Place { controllers, unified, folder } in &self.places {
            let root = folder.parent().expect("a group lies in a tree");
            let switch_on = |folder: &Path| {
                let words: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
                fs::write(folder.join("cgroup.subtree_control"), words.join(" "))
            };
            if *unified {
                switch_on(root)?;
            }
            make_dir(folder)?;
            if *unified {
                switch_on(folder)?;
            }
            for controller in controllers {
                self.limit(controller, *unified, folder)?;
            }
        }
        let _ = self.made.set(());
        Ok(())
    }

    fn limit(&self, controller: &str, unified: bool, folder: &Path) -> io::Result<()> {
        let memory = self.limits.memory.0.to_string();
        match (controller, unified) {
            ("memory", true) => {
                fs::write(folder.join("memory.max"), memory)?;
                // What swaps does not stay within its memory. The file is missing where the kernel has no swap.
                write_if_there(&folder.join("memory.swap.max"), "0")
            }
            ("memory", false) => {
                fs::write(folder.join("memory.limit_in_bytes"), &memory)?;
                write_if_there(&folder.join("memory.memsw.limit_in_bytes"), &memory)
            }
            _ => fs::write(folder.join("pids.max"), self.limits.pids.to_string()),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for place in &self.places {
            remove(&place.folder);
        }
    }
}

/// The group of one step, removed with the value: its processes must have ended.
#[derive(Debug)]
pub(super) struct StepGroup {
    folders: Vec<PathBuf>,
    /// A process that writes 0 into each of these is in the group.
    pub(super) join: Vec<File>,
}

/// What a step had too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    Memory,
    Pids,
}

impl StepGroup {
    #[cfg(test)]
    pub(super) fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// Returns what the kernel refused to the step.
    pub(super) fn short(&self) -> Option<Short> {
        let counted = |file: &str, word: &str| {
            self.folders.iter().any(|folder| {
                let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
                text.lines().any(|line| {
                    line.split_once(' ').is_some_and(|(name, count)| name == word && count.trim() != "0")
                })
            })
        };
        if counted("memory.events", "oom_kill") || counted("memory.oom_control", "oom_kill") {
            return Some(Short::Memory);
        }
        counted("pids.events", "max").then_some(Short::Pids)
    }
}

impl Drop for StepGroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove(folder);
        }
    }
}

/// Finds the tree of each controller; the folders are the trees' roots.
fn trees(mountinfo: &str, offered: impl Fn(&Path) -> String) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut words = right.split(' ');
        let (unified, offered) = match words.next() {
            Some("cgroup2") => (true, offered(&point)),
            Some("cgroup") => (false, words.nth(1).unwrap_or_default().replace(',', " ")),
            _ => continue,
        };
        let here = |name: &&str| {
            offered.split_whitespace().any(|word| word == *name)
                && !places.iter().any(|place| place.controllers.contains(name))
        };
        let controllers: Vec<&str> = CONTROLLERS.into_iter().filter(here).collect();
        if !controllers.is_empty() {
            places.push(Place { controllers, unified, folder: point });
        }
    }
    places
}

/// Removes the groups of bakes whose process is gone.
fn sweep(root: &Path, prefix: &str) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(prefix)?.split('.').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            for step in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                // Files of a group are no folders, and the kernel refuses.
                let _ = fs::remove_dir(step.path());
            }
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    match fs::write(path, text) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

/// What stays busy is left to the next bake.
fn remove(folder: &Path) {
    let deadline = Instant::now() + EMPTY_WITHIN;
    while let Err(error) = fs::remove_dir(folder) {
        if error.kind() != ErrorKind::ResourceBusy || Instant::now() > deadline {
            return;
        }
        thread::sleep(EMPTY_POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_found_in_both_layouts_of_cgroups() {
        let line = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
        let unified = trees(line, |_| "cpuset cpu io memory pids".into());
        assert_eq!(unified.len(), 1);
        assert!(unified[0].unified && unified[0].controllers == ["memory", "pids"]);

        let hybrid = trees(
            "1 2 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             1 2 0:4 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
             1 2 0:5 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             1 2 0:6 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
            |_| String::new(),
        );
        let found: Vec<_> = hybrid.iter().map(|place| (place.controllers[0], place.unified)).collect();
        assert_eq!(found, [("memory", false), ("pids", false)]);
    }

    #[test]
    fn the_group_of_a_dead_bake_is_removed_by_the_next() {
        let dead = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        let group = Group::find(StepLimits::default()).unwrap();
        assert_eq!(group.unenforced(), None);
        for place in &group.places {
            let name = place.folder.file_name().unwrap().to_str().unwrap();
            let stale = name.replacen(&format!(".{}.", std::process::id()), &format!(".{dead}."), 1);
            let stale = place.folder.with_file_name(stale);
            fs::create_dir_all(stale.join("0")).unwrap();
            let _next = Group::find(StepLimits::default()).unwrap();
            assert!(!stale.exists(), "{}", stale.display());
            assert!(place.folder.exists(), "a living bake keeps its group");
        }
        let places = group.places.clone();
        drop(group);
        assert!(places.iter().all(|place| !place.folder.exists()));
    }
}
