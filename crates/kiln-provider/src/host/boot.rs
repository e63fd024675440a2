//! What a new instance's init is told, and the files by which it tells what became of it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use kiln_model::instance::ExitStatus;
use serde::{Deserialize, Serialize};

use super::network::link::Wiring;

/// All that an instance's init needs to know. It travels in anonymous memory: secrets are in it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Boot {
    pub(crate) folder: PathBuf,
    /// An empty folder on which the root is mounted, in the instance's own view.
    pub(crate) stage: PathBuf,
    pub(crate) hostname: String,
    /// Control groups to join, by their `cgroup.procs`.
    pub(crate) join: Vec<PathBuf>,
    pub(crate) oom_file: Option<PathBuf>,
    /// Whether the unified tree is the only one, and is shown to the instance.
    pub(crate) show_cgroups: bool,
    pub(crate) wiring: Wiring,
    pub(crate) program: Program,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) scratch: Vec<(String, u64)>,
    /// Files that are generated, by their paths; everybody may read them.
    pub(crate) generated: Vec<(String, Vec<u8>)>,
    pub(crate) secrets: Vec<(String, Vec<u8>)>,
}

/// What is executed, and as whom: the same for the main process and for a command probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Program {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: String,
    pub(crate) user: String,
    /// Bits of the capabilities that may ever be had.
    pub(crate) bounding: u64,
    /// Bits of those that were added, which a user other than root gets, too.
    pub(crate) added: u64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// What the host writes to a new init when its folder is ready: until then the init makes what needs no file.
pub(crate) const GO: &[u8] = b"G";

/// What an init reports before the program runs; silence is success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// Another attempt would end the same way.
    Refused(String),
    /// The machine could not do it now.
    Failed(String),
}

impl Failure {
    /// A step that fails when the machine is short of something.
    pub(crate) fn step(what: impl std::fmt::Display) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |error| Self::Failed(format!("cannot {what}: {}", io::Error::from(error)))
    }

    /// The same for errors of the standard library.
    pub(crate) fn step_io(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Failed(format!("cannot {what}: {error}"))
    }
}

/// The init process of an instance, told apart from any later one with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InitIdentity {
    pub(crate) pid: i32,
    /// In clock ticks after the boot.
    pub(crate) start_time: u64,
    pub(crate) boot_id: String,
}

impl InitIdentity {
    /// The file in the instance's folder; its presence means that the program may have run.
    pub(crate) const FILE: &'static str = "init";

    /// Returns what the process sees of itself in the host's /proc, in whatever pid namespace it is.
    pub(crate) fn of_self() -> io::Result<Self> {
        let pid = fs::read_link("/proc/self")?.to_string_lossy().parse().map_err(io::Error::other)?;
        Ok(Self { pid, start_time: start_time("self")?, boot_id: boot_id()? })
    }

    /// Reads what an init wrote.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(folder.join(Self::FILE))?).map_err(io::Error::other)
    }

    /// Whether the process with this number is still the same one.
    pub(crate) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot_id)
            && start_time(&self.pid.to_string()).is_ok_and(|time| time == self.start_time)
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Field 22 of /proc/PID/stat (proc_pid_stat(5)); the command before it may hold spaces and parentheses.
fn start_time(pid: &str) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let field = after.split(' ').nth(19).and_then(|text| text.parse().ok());
    field.ok_or_else(|| io::Error::other("/proc/PID/stat has no start time"))
}

/// The file in which an init leaves how the program ended.
pub(crate) const EXIT_FILE: &str = "exit";

/// Returns the text of an exit status in its file.
pub(crate) fn exit_text(status: ExitStatus) -> String {
    match status {
        ExitStatus::Code(code) => format!("code {code}\n"),
        ExitStatus::Signal(signal) => format!("signal {signal}\n"),
        ExitStatus::OutOfMemory => "oom\n".into(),
        ExitStatus::Unknown => "unknown\n".into(),
    }
}

/// Returns how the program of an instance ended; unknown if its init left no word.
pub(crate) fn read_exit(folder: &Path) -> ExitStatus {
    let text = fs::read_to_string(folder.join(EXIT_FILE)).unwrap_or_default();
    let mut words = text.split_whitespace();
    let (kind, number) = (words.next(), words.next().and_then(|word| word.parse().ok()));
    match (kind, number) {
        (Some("code"), Some(code)) => ExitStatus::Code(code),
        (Some("signal"), Some(signal)) => ExitStatus::Signal(signal),
        (Some("oom"), _) => ExitStatus::OutOfMemory,
        _ => ExitStatus::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_status_reads_back_and_anything_else_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_exit(folder.path()), ExitStatus::Unknown);
        for status in [
            ExitStatus::Code(0),
            ExitStatus::Code(255),
            ExitStatus::Signal(9),
            ExitStatus::OutOfMemory,
            ExitStatus::Unknown,
        ] {
            fs::write(folder.path().join(EXIT_FILE), exit_text(status)).unwrap();
            assert_eq!(read_exit(folder.path()), status);
        }
        fs::write(folder.path().join(EXIT_FILE), "code 900\n").unwrap();
        assert_eq!(read_exit(folder.path()), ExitStatus::Unknown);
    }

    #[test]
    fn a_process_is_not_taken_for_another_one_with_its_number() {
        let this = InitIdentity::of_self().unwrap();
        assert!(this.is_alive());
        assert!(!InitIdentity { start_time: this.start_time + 1, ..this.clone() }.is_alive());
        assert!(!InitIdentity { boot_id: "another".into(), ..this }.is_alive());
    }
}
