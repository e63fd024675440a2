//! Control groups: one per instance, in which its processes are counted, limited and killed.
//!
//! Where the unified tree has controllers, it does everything. On a hybrid host processes are grouped, killed and found empty in
//! the unified tree, and limited through the controllers' own trees. Nothing outside `kiln-<state id>/` is ever touched.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::InstanceId;
use kiln_model::instance::Limits;

/// The scheduler's period: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// The kernel refuses less than a millisecond in a period.
const CPU_QUOTA_US_MIN: u64 = 1000;
/// Killed processes can still be in the kernel, writing back or in a driver; beyond this something is wrong with the machine.
const EMPTY_WITHIN: Duration = Duration::from_secs(20);
/// How often a group is looked at while it empties.
const EMPTY_POLL: Duration = Duration::from_micros(500);

/// The init, and for a moment the launcher that it is cloned from.
const OWN_PROCESSES: u64 = 2;

/// The limits that a spec can ask for.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Where this host's control groups are.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    unified: PathBuf,
    /// Whether the unified tree has these controllers; if not, each has a tree of its own, or is missing.
    limits: Vec<Controller>,
}

#[derive(Debug, Clone)]
struct Controller {
    name: &'static str,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Unified,
    Own(PathBuf),
    Missing,
}

/// The groups of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// Its folder in the unified tree.
    pub(crate) unified: PathBuf,
    own: Vec<PathBuf>,
    memory: Option<PathBuf>,
}

impl Cgroups {
    /// Finds the trees and makes this Kiln's folder in each.
    pub(crate) fn open(state_id: &str) -> io::Result<Self> {
        let trees = Trees::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        let root = trees.unified.as_ref().ok_or_else(|| {
            io::Error::new(
                ErrorKind::Unsupported,
                "this machine has no cgroup v2 tree mounted; kiln needs one",
            )
        })?;
        let folder = format!("kiln-{state_id}");
        let offered = fs::read_to_string(root.join("cgroup.controllers"))?;
        let limits = CONTROLLERS
            .map(|name| {
                let own = trees.own.iter().find(|(controller, _)| controller == name);
                let place = match own {
                    _ if offered.split_whitespace().any(|word| word == name) => Place::Unified,
                    Some((_, root)) => Place::Own(root.join(&folder)),
                    None => Place::Missing,
                };
                Controller { name, place }
            })
            .to_vec();
        let cgroups = Self { unified: root.join(folder), limits };
        cgroups.make_folders(root)?;
        Ok(cgroups)
    }

    fn make_folders(&self, root: &Path) -> io::Result<()> {
        make_dir(&self.unified)?;
        for controller in &self.limits {
            match &controller.place {
                Place::Unified => {
                    for folder in [root, &self.unified] {
                        fs::write(folder.join("cgroup.subtree_control"), format!("+{}", controller.name))?;
                    }
                }
                Place::Own(folder) => make_dir(folder)?,
                Place::Missing => {}
            }
        }
        Ok(())
    }

    /// Says how processes are limited here, for people.
    pub(crate) fn describe(&self) -> String {
        let hybrid = self.limits.iter().any(|controller| !matches!(controller.place, Place::Unified));
        if hybrid { "cgroup v2 with v1 controllers (hybrid)" } else { "cgroup v2" }.into()
    }

    /// Returns the limits that can't be enforced here, each with the reason.
    pub(crate) fn unenforced(&self) -> Vec<String> {
        let missing = self.limits.iter().filter(|controller| matches!(controller.place, Place::Missing));
        missing.map(|c| format!("{}: no cgroup tree of this machine has its controller", c.name)).collect()
    }

    /// Returns an instance's groups, whether they exist or not.
    pub(crate) fn group(&self, name: &str) -> Group {
        let own = self.limits.iter().filter_map(|controller| match &controller.place {
            Place::Own(folder) => Some(folder.join(name)),
            _ => None,
        });
        let memory = self.limits.iter().find(|controller| controller.name == "memory");
        let memory = memory.and_then(|controller| match &controller.place {
            Place::Own(folder) => Some(folder.join(name).join("memory.oom_control")),
            Place::Unified => Some(self.unified.join(name).join("memory.events")),
            Place::Missing => None,
        });
        Group { unified: self.unified.join(name), own: own.collect(), memory }
    }

    /// Whether a controller has a tree of its own, in which a process can't begin its life.
    pub(crate) fn has_own_trees(&self) -> bool {
        self.limits.iter().any(|controller| matches!(controller.place, Place::Own(_)))
    }

    /// Makes groups without limits in the controllers' own trees, for an instance that is yet to come.
    pub(crate) fn make_spare(&self, name: &str) -> io::Result<Group> {
        let group = self.group(name);
        group.own.iter().try_for_each(|folder| make_dir(folder))?;
        Ok(group)
    }

    /// Makes an instance's groups, of spare ones where there are some, and sets its limits.
    pub(crate) fn create(&self, id: InstanceId, limits: &Limits, spare: Option<&str>) -> io::Result<Group> {
        let group = self.group(id.as_str());
        make_dir(&group.unified)?;
        match spare {
            // Only trees of version 1 can rename, and only those have spare ones.
            Some(spare) => {
                for (from, to) in self.group(spare).own.iter().zip(&group.own) {
                    fs::rename(from, to)?;
                }
            }
            None => group.own.iter().try_for_each(|folder| make_dir(folder))?,
        }
        for controller in &self.limits {
            let (folder, unified) = match &controller.place {
                Place::Unified => (group.unified.clone(), true),
                Place::Own(folder) => (folder.join(id.as_str()), false),
                Place::Missing => continue,
            };
            match controller.name {
                "memory" => limit_memory(&folder, unified, limits)?,
                "cpu" => limit_cpu(&folder, unified, limits)?,
                _ => {
                    let pids = u64::from(limits.pids) + OWN_PROCESSES;
                    fs::write(folder.join("pids.max"), pids.to_string())?;
                }
            }
        }
        Ok(group)
    }

    /// Returns the names of all groups of this Kiln, in whichever tree.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let own = self.limits.iter().filter_map(|controller| match &controller.place {
            Place::Own(folder) => Some(folder),
            _ => None,
        });
        let mut names = Vec::new();
        for folder in own.chain([&self.unified]) {
            for entry in fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.extend(entry.file_name().into_string().ok());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// Removes this Kiln's own folders, which must be empty.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for controller in &self.limits {
            if let Place::Own(folder) = &controller.place {
                remove_dir(folder)?;
            }
        }
        remove_dir(&self.unified)
    }
}

impl Group {
    /// Returns the files into which a process writes 0 to join the groups of the controllers' own trees.
    pub(crate) fn join_files(&self) -> Vec<PathBuf> {
        self.own.iter().map(|folder| folder.join("cgroup.procs")).collect()
    }

    /// Returns the file that counts how often the kernel killed for memory.
    pub(crate) fn oom_file(&self) -> Option<PathBuf> {
        self.memory.clone()
    }

    /// Whether a process is in it, zombies included.
    pub(crate) fn is_populated(&self) -> bool {
        let events = fs::read_to_string(self.unified.join("cgroup.events")).unwrap_or_default();
        events.lines().any(|line| line == "populated 1")
    }

    /// Kills every process in it, frozen and forking ones included, and waits until they are gone.
    pub(crate) fn kill(&self) -> io::Result<()> {
        match fs::write(self.unified.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == ErrorKind::NotFound && !self.unified.exists() => return Ok(()),
            other => other?,
        }
        let deadline = Instant::now() + EMPTY_WITHIN;
        while self.is_populated() {
            if Instant::now() > deadline {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "killed processes did not go: they hang in the kernel",
                ));
            }
            thread::sleep(EMPTY_POLL);
        }
        Ok(())
    }

    /// Removes the groups, which must be empty.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for folder in self.own.iter().chain([&self.unified]) {
            remove_tree(folder)?;
        }
        Ok(())
    }
}

fn limit_memory(folder: &Path, unified: bool, limits: &Limits) -> io::Result<()> {
    let Some(memory) = limits.memory else { return Ok(()) };
    let bytes = memory.0.to_string();
    if unified {
        fs::write(folder.join("memory.max"), &bytes)?;
        // What swaps does not stay within its memory. The file is missing where the kernel has no swap.
        return write_if_there(&folder.join("memory.swap.max"), "0");
    }
    fs::write(folder.join("memory.limit_in_bytes"), &bytes)?;
    write_if_there(&folder.join("memory.memsw.limit_in_bytes"), &bytes)
}

fn limit_cpu(folder: &Path, unified: bool, limits: &Limits) -> io::Result<()> {
    let Some(cpu) = limits.cpu else { return Ok(()) };
    let quota = (u64::from(cpu.0) * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN);
    if unified {
        return fs::write(folder.join("cpu.max"), format!("{quota} {CPU_PERIOD_US}"));
    }
    fs::write(folder.join("cpu.cfs_period_us"), CPU_PERIOD_US.to_string())?;
    fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())
}

fn write_if_there(path: &Path, text: &str) -> io::Result<()> {
    match fs::write(path, text) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes a group and what an instance may have made below it. Groups hold no files of their own, only folders.
fn remove_tree(path: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    remove_dir(path)
}

/// Removes a folder. A group whose last process just went can be busy for a moment.
fn remove_dir(path: &Path) -> io::Result<()> {
    let deadline = Instant::now() + EMPTY_WITHIN;
    loop {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(EMPTY_POLL);
            }
            other => return other,
        }
    }
}

/// What /proc/self/mountinfo says about control groups.
#[derive(Debug, Default, PartialEq, Eq)]
struct Trees {
    unified: Option<PathBuf>,
    own: Vec<(String, PathBuf)>,
}

impl Trees {
    fn parse(mountinfo: &str) -> Self {
        let mut trees = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut words = right.split(' ');
            match words.next() {
                Some("cgroup2") if trees.unified.is_none() => trees.unified = Some(point),
                Some("cgroup") => {
                    let options = words.nth(1).unwrap_or_default();
                    let controllers = options.split(',').filter(|option| CONTROLLERS.contains(option));
                    trees.own.extend(controllers.map(|name| (name.to_owned(), point.clone())));
                }
                _ => {}
            }
        }
        trees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_of_cgroups_are_found_in_mountinfo() {
        let unified = Trees::parse("30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(unified.unified, Some("/sys/fs/cgroup".into()));
        assert!(unified.own.is_empty());

        let hybrid = Trees::parse(
            "1 2 0:3 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             1 2 0:4 / /sys/fs/cgroup/cpu,cpuacct rw shared:1 - cgroup cgroup rw,cpu,cpuacct\n\
             1 2 0:5 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(hybrid.unified, Some("/sys/fs/cgroup/unified".into()));
        let names: Vec<_> = hybrid.own.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["memory", "cpu"]);
    }
}
