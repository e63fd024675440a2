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

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let inputs =
        Inputs::make(folder.path()).map_err(|error| format!("the versions can't be made: {error}"))?;
    let ours = ours(&inputs, folder.path())?;
    let restic = installed("restic").then(|| restic(&inputs, folder.path())).transpose()?;
    let borg = installed("borg").then(|| borg(&inputs, folder.path())).transpose()?;
    let beside = |name: &str, peer: &Option<Peer>| match peer {
        Some(peer) => format!("{} ({name})", megabytes(peer.bytes)),
        None => format!("{name} is not installed"),
    };
    let beside = format!("{}, {}", beside("restic", &restic), beside("borg", &borg));
    table.fact("thirty versions of 100 MB, all that is stored", megabytes(ours.bytes), Some(beside));
    let peer = restic.map(|peer| ("restic", peer.restored)).or(borg.map(|peer| ("borg", peer.restored)));
    table.row("… unpacking one of them until it is mounted", ours.wall, peer);
    table.row("… of that, processor time", ours.processor, None);
    table.row("… packing all of them", ours.packing, None);
    Ok(())
}

struct Ours {
    bytes: u64,
    packing: Duration,
    wall: Duration,
    processor: Duration,
}

struct Peer {
    bytes: u64,
    restored: Duration,
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

fn ours(inputs: &Inputs, folder: &Path) -> Result<Ours, String> {
    let (state, copy) = (folder.join("state"), folder.join("copy"));
    let packed = example("pack", &[&state, &inputs.base, &inputs.versions])?;
    quietly(Command::new("cp").arg("--archive").args([&state, &copy]))?;
    let unpacked = example("unpack", &[&copy])?;
    Ok(Ours {
        bytes: number(&packed, "bytes ")?,
        packing: Duration::from_micros(number(&packed, "packing_us ")?),
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

fn restic(inputs: &Inputs, folder: &Path) -> Result<Peer, String> {
    let repository = folder.join("restic");
    let run = |arguments: &[&str], paths: &[&Path]| {
        let mut command = Command::new("restic");
        command.env("RESTIC_PASSWORD", "bench").arg("--repo").arg(&repository);
        quietly(command.args(["--no-cache", "--quiet"]).args(arguments).args(paths))
    };
    run(&["init"], &[])?;
    for version in 0..VERSIONS {
        run(&["backup"], &[&inputs.base, &inputs.versions.join(format!("{version:02}"))])?;
    }
    let begin = Instant::now();
    run(&["restore", "latest", "--target"], &[&folder.join("restored")])?;
    Ok(Peer { restored: begin.elapsed(), bytes: size(&repository) })
}

fn borg(inputs: &Inputs, folder: &Path) -> Result<Peer, String> {
    let repository = folder.join("borg");
    let command = || {
        let mut command = Command::new("borg");
        command.env("BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK", "yes").env("BORG_BASE_DIR", folder);
        command
    };
    quietly(command().args(["init", "--encryption", "none"]).arg(&repository))?;
    let archive = |version: u64| format!("{}::{version}", repository.display());
    for version in 0..VERSIONS {
        let changed = inputs.versions.join(format!("{version:02}"));
        quietly(command().args(["create", &archive(version)]).args([&inputs.base, &changed]))?;
    }
    let out = folder.join("extracted");
    fs::create_dir(&out).map_err(|error| error.to_string())?;
    let begin = Instant::now();
    quietly(command().current_dir(out).args(["extract", &archive(VERSIONS / 2)]))?;
    Ok(Peer { restored: begin.elapsed(), bytes: size(&repository) })
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
