//! Thirty versions of an image of 100 MB, each with a little change in one file of 5 MB, beside restic and borg.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::installed;
use super::table::Table;
use crate::cargo::{cargo, target};

const VERSIONS: u64 = 30;
/// What all versions share: files of this machine, as a distribution's image has them.
const BASE_BYTES: u64 = 95 << 20;
/// The file that differs.
const CHANGED_BYTES: usize = 5 << 20;

/// ext4 gives out no inode that was deleted within the last minute, or within five where that is not on the disk yet, and looks
/// at one after the other of them: whoever writes many files after many were removed measures that, too. Kiln's store evades
/// it, what it is measured against may not. What is unpacked was packed long ago, so the machine rests before.
const REST: Duration = Duration::from_secs(75);

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let inputs =
        Inputs::make(folder.path()).map_err(|error| format!("the versions can't be made: {error}"))?;
    let ours = Ours::make(&inputs, folder.path())?;
    let restic = installed("restic").then(|| Restic::make(&inputs, folder.path())).transpose()?;
    let borg = installed("borg").then(|| Borg::make(&inputs, folder.path())).transpose()?;
    let beside = |name: &str, bytes: Option<u64>| match bytes {
        Some(bytes) => format!("{} ({name})", megabytes(bytes)),
        None => format!("{name} is not installed"),
    };
    let [of_restic, of_borg] =
        [restic.as_ref().map(|it| size(&it.repository)), borg.as_ref().map(|it| size(&it.repository))];
    let beside = format!("{}, {}", beside("restic", of_restic), beside("borg", of_borg));
    table.fact("thirty versions of 100 MB, all that is stored", megabytes(ours.bytes), Some(beside));
    let peer = |times: &str| match (&restic, &borg) {
        (Some(restic), _) => {
            Ok(Some(("restic", restic.restore(&folder.path().join(format!("restic {times}")))?)))
        }
        (None, Some(borg)) => Ok(Some(("borg", borg.restore(&folder.path().join(format!("borg {times}")))?))),
        (None, None) => Ok::<_, String>(None),
    };
    let at_once = (unpack(&ours.copies[0])?, peer("at once")?);
    quietly(&mut Command::new("sync"))?;
    std::thread::sleep(REST);
    let (unpacked, restored) = (unpack(&ours.copies[1])?, peer("rested")?);
    table.row("… unpacking one of them until it is mounted", unpacked.wall, restored);
    table.row("… of that, processor time", unpacked.processor, None);
    table.row("… unpacking, with all others packed just before", at_once.0.wall, at_once.1);
    table.row("… packing all of them", ours.packing, None);
    Ok(())
}

/// A folder that all versions share, and one for each with the file that differs.
struct Inputs {
    base: PathBuf,
    versions: PathBuf,
}

impl Inputs {
    fn make(folder: &Path) -> std::io::Result<Self> {
        let inputs = Self { base: folder.join("base"), versions: folder.join("versions") };
        fs::create_dir_all(&inputs.base)?;
        let (mut copied, mut changed) = (0, Vec::new());
        let mut ahead = vec![PathBuf::from("/usr/share"), PathBuf::from("/usr/lib")];
        while let Some(folder) = ahead.pop() {
            let mut found: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|file| file.path()).collect();
            found.sort();
            for path in found {
                let meta = path.symlink_metadata()?;
                if meta.is_dir() {
                    ahead.push(path);
                } else if meta.is_file() && meta.len() > 0 && changed.len() < CHANGED_BYTES {
                    // One in eight, so that no single package makes up the whole.
                    let chosen = path.as_os_str().len() % 8 == 0;
                    if chosen && copied + meta.len() <= BASE_BYTES {
                        let below = path.strip_prefix("/").expect("it was found below the root");
                        let target = inputs.base.join(below);
                        fs::create_dir_all(target.parent().expect("it lies in a folder"))?;
                        fs::copy(&path, target)?;
                        copied += meta.len();
                    } else if chosen {
                        changed.extend(fs::read(&path)?);
                    }
                }
            }
        }
        changed.truncate(CHANGED_BYTES);
        for version in 0..VERSIONS {
            let folder = inputs.versions.join(format!("{version:02}"));
            fs::create_dir_all(&folder)?;
            // A little is put in and a little is overwritten, each time elsewhere.
            let at = version as usize * changed.len() / VERSIONS as usize;
            let line = format!("version {version}\n");
            changed.splice(at..at, line.bytes());
            fs::write(folder.join("application"), &changed)?;
        }
        Ok(inputs)
    }
}

/// The store with all versions packed, and copies of it, each for one look at unpacking.
struct Ours {
    bytes: u64,
    packing: Duration,
    copies: [PathBuf; 2],
}

impl Ours {
    fn make(inputs: &Inputs, folder: &Path) -> Result<Self, String> {
        let (state, copies) = (folder.join("state"), ["copy0", "copy1"].map(|name| folder.join(name)));
        let packed = example("pack", &[&state, &inputs.base, &inputs.versions])?;
        for copy in &copies {
            quietly(Command::new("cp").arg("--archive").args([&state, copy]))?;
        }
        Ok(Self {
            bytes: number(&packed, "bytes ")?,
            packing: Duration::from_micros(number(&packed, "packing_us ")?),
            copies,
        })
    }
}

struct Unpacked {
    wall: Duration,
    processor: Duration,
}

fn unpack(copy: &Path) -> Result<Unpacked, String> {
    let unpacked = example("unpack", &[copy])?;
    Ok(Unpacked {
        wall: Duration::from_micros(number(&unpacked, "wall_us ")?),
        processor: Duration::from_micros(number(&unpacked, "cpu_us ")?),
    })
}

/// Runs the example of `kiln-store`, which says what it measured.
fn example(verb: &str, paths: &[&Path]) -> Result<String, String> {
    let output = cargo()
        .args(["run", "--release", "--locked", "--quiet", "--package", "kiln-store", "--example", "keep"])
        .arg("--target-dir")
        .arg(target())
        .args(["--", verb])
        .args(paths)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn number(text: &str, name: &str) -> Result<u64, String> {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    found.ok_or_else(|| format!("the example says no `{name}`: {text}"))
}

struct Restic {
    repository: PathBuf,
}

impl Restic {
    fn make(inputs: &Inputs, folder: &Path) -> Result<Self, String> {
        let restic = Self { repository: folder.join("restic") };
        restic.run(&["init"], &[])?;
        for version in 0..VERSIONS {
            restic.run(&["backup"], &[&inputs.base, &inputs.versions.join(format!("{version:02}"))])?;
        }
        Ok(restic)
    }

    fn restore(&self, target: &Path) -> Result<Duration, String> {
        let begin = Instant::now();
        self.run(&["restore", "latest", "--target"], &[target])?;
        Ok(begin.elapsed())
    }

    fn run(&self, arguments: &[&str], paths: &[&Path]) -> Result<(), String> {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "bench").arg("--repo").arg(&self.repository);
        quietly(command.args(["--no-cache", "--quiet"]).args(arguments).args(paths))
    }
}

struct Borg {
    repository: PathBuf,
}

impl Borg {
    fn make(inputs: &Inputs, folder: &Path) -> Result<Self, String> {
        let borg = Self { repository: folder.join("borg") };
        quietly(borg.command().args(["init", "--encryption", "none"]).arg(&borg.repository))?;
        for version in 0..VERSIONS {
            let changed = inputs.versions.join(format!("{version:02}"));
            quietly(borg.command().args(["create", &borg.archive(version)]).args([&inputs.base, &changed]))?;
        }
        Ok(borg)
    }

    fn restore(&self, target: &Path) -> Result<Duration, String> {
        fs::create_dir(target).map_err(|error| error.to_string())?;
        let begin = Instant::now();
        quietly(self.command().current_dir(target).args(["extract", &self.archive(VERSIONS / 2)]))?;
        Ok(begin.elapsed())
    }

    fn archive(&self, version: u64) -> String {
        format!("{}::{version}", self.repository.display())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("borg");
        let home = self.repository.with_extension("home");
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes").env("BORG_BASE_DIR", home);
        command
    }
}

fn quietly(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{:?} failed: {said}", command.get_program())) }
}

/// The bytes of all files below a folder.
fn size(folder: &Path) -> u64 {
    let mut bytes = 0;
    for file in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_folder = file.file_type().is_ok_and(|kind| kind.is_dir());
        bytes += if is_folder { size(&file.path()) } else { file.metadata().map_or(0, |meta| meta.len()) };
    }
    bytes
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
