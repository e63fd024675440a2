//! What an instance sees of files: its image, read-only, and what is mounted over it.
//!
//! Everything that comes from outside is opened before the root changes, and attached after: from then on every path is looked
//! up in the instance's own root, so that no link of the image leads out of it.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};

use super::boot::{Boot, Failure};
use super::user::Identity;
use crate::sys::{self, MOUNT_NO_DEVICES, MOUNT_NO_SUID, MOUNT_READ_ONLY};

/// Enough for what programs put into /tmp and /dev/shm without being asked; `scratch` gives more.
const TMP_BYTES: u64 = 64 << 20;
/// Sockets and pid files.
const RUN_BYTES: u64 = 16 << 20;
/// Device nodes and links only.
const DEV_BYTES: u64 = 64 << 10;
const PAGE: u64 = 4096;
/// One inode per page, so that empty files can't take more memory than full ones.
const BYTES_PER_INODE: u64 = PAGE;
/// A small tmpfs still takes some files.
const INODES_MIN: u64 = 256;

/// Kernel interfaces that can't be written, as in Docker.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Kernel interfaces that can't be read, as in Docker.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/kpagecount",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// Name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_LINKS: [(&str, &str); 6] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];
/// A mount that is attached nowhere yet.
struct Detached {
    mount: OwnedFd,
    target: String,
    is_folder: bool,
}

/// What comes from outside the instance.
pub(crate) struct Prepared {
    mounts: Vec<Detached>,
}

/// Opens what is mounted from the host, and cuts this process's view off from the host's.
pub(crate) fn prepare(boot: &Boot) -> Result<Prepared, Failure> {
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(Failure::step("make the mounts private"))?;
    let mut mounts = Vec::new();
    for volume in &boot.volumes {
        let mount = detach(&volume.source, volume.read_only)?;
        mounts.push(Detached { mount, target: volume.target.clone(), is_folder: true });
    }
    Ok(Prepared { mounts })
}

fn detach(source: &Path, read_only: bool) -> Result<OwnedFd, Failure> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, source, flags).map_err(Failure::step(format!("open {}", source.display())))?;
    let attributes = MOUNT_NO_DEVICES | MOUNT_NO_SUID | if read_only { MOUNT_READ_ONLY } else { 0 };
    sys::restrict_mount(mount.as_fd(), attributes).map_err(Failure::step_io("restrict a mount"))?;
    Ok(mount)
}

/// Makes `root` the root of everything this process sees.
pub(crate) fn enter(root: OwnedFd, stage: &Path) -> Result<(), Failure> {
    sys::restrict_mount(root.as_fd(), MOUNT_READ_ONLY | MOUNT_NO_DEVICES)
        .map_err(Failure::step_io("make the root read-only"))?;
    move_mount(&root, "", CWD, stage, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Failure::step("attach the root"))?;
    rustix::process::chdir(stage).map_err(Failure::step("enter the root"))?;
    // pivot_root(2): with the same folder twice the old root is left on top of the new one, and taken off there.
    rustix::process::pivot_root(".", ".").map_err(Failure::step("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(Failure::step("leave the host's files"))?;
    rustix::process::chdir("/").map_err(Failure::step("enter the root"))
}

/// Mounts everything over the root that the instance gets.
pub(crate) fn furnish(boot: &Boot, prepared: Prepared, user: &Identity) -> Result<(), Failure> {
    mount_kernel_interfaces(boot.show_cgroups)?;
    mount_devices()?;
    let declared: Vec<&str> = boot.scratch.iter().map(|(path, _)| path.as_str()).collect();
    let defaults = [("/tmp", TMP_BYTES, 0o1777), ("/run", RUN_BYTES, 0o755), ("/dev/shm", TMP_BYTES, 0o1777)];
    for (path, bytes, mode) in defaults {
        if !declared.contains(&path) && !boot.volumes.iter().any(|volume| volume.target == path) {
            mount_memory(path, bytes, mode, (0, 0))?;
        }
    }
    for (path, bytes) in &boot.scratch {
        mount_memory(path, *bytes, 0o1777, (user.uid, user.gid))?;
    }
    let mut mounts = prepared.mounts;
    mounts.extend(write_files(boot, user)?);
    // What lies within another mount comes after it.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    for Detached { mount, target, is_folder } in mounts {
        make_place(&target, is_folder)?;
        attach(&mount, &target)?;
    }
    // Nothing is to be added to /dev: a node in it would be the only one that works.
    mount_remount(
        "/dev",
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOEXEC,
        c"",
    )
    .map_err(Failure::step("make /dev read-only"))
}

fn attach(mount: &OwnedFd, target: &str) -> Result<(), Failure> {
    move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Failure::step(format!("mount {target}")))
}

fn mount_kernel_interfaces(show_cgroups: bool) -> Result<(), Failure> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    make_place("/proc", true)?;
    mount("proc", "/proc", "proc", quiet, None).map_err(Failure::step("mount /proc"))?;
    make_place("/sys", true)?;
    mount("sysfs", "/sys", "sysfs", quiet | MountFlags::RDONLY, None).map_err(Failure::step("mount /sys"))?;
    if show_cgroups {
        mount("cgroup", "/sys/fs/cgroup", "cgroup2", quiet | MountFlags::RDONLY, None)
            .map_err(Failure::step("mount /sys/fs/cgroup"))?;
    }
    for path in READ_ONLY {
        match mount_bind_recursive(path, path) {
            Err(Errno::NOENT) => continue,
            other => other.map_err(Failure::step(format!("protect {path}")))?,
        }
        mount_remount(path, quiet | MountFlags::BIND | MountFlags::RDONLY, c"")
            .map_err(Failure::step(format!("protect {path}")))?;
    }
    Ok(())
}

fn mask(path: &str) -> Result<(), Failure> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let masked = if metadata.is_dir() {
        mount("tmpfs", path, "tmpfs", flags, c"size=0,nr_inodes=1")
    } else {
        mount_bind_recursive("/dev/null", path)
    };
    masked.map_err(Failure::step(format!("mask {path}")))
}

fn mount_devices() -> Result<(), Failure> {
    make_place("/dev", true)?;
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    let options = tmpfs_options(DEV_BYTES, 0o755, (0, 0));
    mount("tmpfs", "/dev", "tmpfs", flags, &*options).map_err(Failure::step("mount /dev"))?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from(0o666), makedev(major, minor))
            .map_err(Failure::step(format!("make {path}")))?;
    }
    for (name, target) in DEVICE_LINKS {
        symlink(target, format!("/dev/{name}")).map_err(Failure::step_io(format!("make /dev/{name}")))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        make_folder(&format!("/dev/{name}"))?;
    }
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount("devpts", "/dev/pts", "devpts", flags, options).map_err(Failure::step("mount /dev/pts"))?;
    mount("mqueue", "/dev/mqueue", "mqueue", flags | MountFlags::NODEV, None)
        .map_err(Failure::step("mount /dev/mqueue"))?;
    MASKED.iter().try_for_each(|path| mask(path))
}

fn mount_memory(path: &str, bytes: u64, mode: u32, owner: (u32, u32)) -> Result<(), Failure> {
    make_place(path, true)?;
    let options = tmpfs_options(bytes, mode, owner);
    mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)
        .map_err(Failure::step(format!("mount memory on {path}")))
}

fn tmpfs_options(bytes: u64, mode: u32, (uid, gid): (u32, u32)) -> CString {
    let inodes = (bytes / BYTES_PER_INODE).max(INODES_MIN);
    CString::new(format!("size={bytes},nr_inodes={inodes},mode={mode:o},uid={uid},gid={gid}"))
        .expect("numbers hold no zero byte")
}

/// Writes generated files and secrets into memory of their own, from where each is mounted at its path: it can be read there and
/// not replaced.
fn write_files(boot: &Boot, user: &Identity) -> Result<Vec<Detached>, Failure> {
    /// A place that is there in every image and is covered again at once.
    const WORKSHOP: &str = "/dev/shm";
    let generated = boot.generated.iter().map(|file| (file, 0o444, (0, 0)));
    let secrets = boot.secrets.iter().map(|file| (file, 0o400, (user.uid, user.gid)));
    let files: Vec<_> = generated.chain(secrets).collect();
    let bytes: u64 =
        files.iter().map(|((_, content), ..)| (content.len() as u64).next_multiple_of(PAGE) + PAGE).sum();
    let options = tmpfs_options(bytes, 0o700, (0, 0));
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", WORKSHOP, "tmpfs", flags, &*options).map_err(Failure::step("mount memory for files"))?;
    let mut detached = Vec::new();
    for (index, ((path, content), mode, (uid, gid))) in files.into_iter().enumerate() {
        let file = format!("{WORKSHOP}/{index}");
        let step = || format!("write {path}");
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o400).open(&file);
        made.and_then(|mut made| {
            std::io::Write::write_all(&mut made, content)?;
            fchown(&made, Some(uid), Some(gid))?;
            // Whatever umask the host was started with.
            made.set_permissions(fs::Permissions::from_mode(mode))
        })
        .map_err(Failure::step_io(step()))?;
        let mount = detach(Path::new(&file), true)?;
        detached.push(Detached { mount, target: path.clone(), is_folder: false });
    }
    unmount(WORKSHOP, UnmountFlags::DETACH).map_err(Failure::step("hide the memory for files"))?;
    Ok(detached)
}

/// Makes sure that there is something to mount on. In the image the store has made it; in memory it is made here.
fn make_place(path: &str, is_folder: bool) -> Result<(), Failure> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() == is_folder => return Ok(()),
        Ok(_) => {
            let kind = if is_folder { "a file, not a folder" } else { "a folder, not a file" };
            return Err(Failure::Refused(format!(
                "{path} in the image is {kind}: nothing can be mounted on it"
            )));
        }
        Err(_) => {}
    }
    if is_folder {
        return make_folder(path);
    }
    if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
        make_folder(parent)?;
    }
    let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(path);
    made.map(drop).map_err(|error| no_place(path, &error))
}

fn make_folder(path: &str) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| no_place(path, &error))
}

fn no_place(path: &str, error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory | ErrorKind::NotFound => Failure::Refused(
            format!("{path} can't be mounted: the image has no such path, and none can be made"),
        ),
        _ => Failure::Failed(format!("cannot make {path}: {error}")),
    }
}
