//! Mounting images: attached nowhere, and read-only but for what a bake runs over.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use crate::erofs::BLOCK_BYTES;
use crate::sys::attach_loop;

/// The kernel's answers to a mount are single lines; this holds several of them.
const MESSAGE_BYTES: usize = 1024;

/// The kernel refused a mount.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// What it refused.
    pub(crate) step: &'static str,
    /// What it said beside the error number; often nothing.
    pub(crate) message: String,
    pub(crate) source: io::Error,
}

/// What lies between an image's file and its mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    File,
    Loop,
}

/// Mounts an EROFS image.
pub(crate) fn mount_erofs(image: &Path, backing: Backing) -> Result<OwnedFd, Refusal> {
    let device = match backing {
        Backing::File => None,
        Backing::Loop => {
            let attached = File::open(image).and_then(|file| attach_loop(&file, BLOCK_BYTES as u32));
            Some(attached.map_err(|source| Refusal {
                step: "loop device",
                message: String::new(),
                source,
            })?)
        }
    };
    let source = device.as_ref().map_or(image, |device| Path::new(&device.path));
    build("erofs", Access::Read, |context| fsconfig_set_string(context, "source", source))
}

/// Mounts the overlay of a metadata image's mount and the folder of the objects that it redirects to.
pub(crate) fn mount_overlay(metadata: &OwnedFd, objects: &Path) -> Result<OwnedFd, Refusal> {
    let objects = open_folder(objects)?;
    build("overlay", Access::Read, |context| configure_layers(context, metadata, &objects))
}

/// As [`mount_overlay`]; what is written goes to `upper`, and `work` is an empty folder of the same file system.
///
/// `volatile`: after a power failure nobody looks at what was written. Without an index and with plain inode numbers what is
/// written depends on nothing but what is done.
pub(crate) fn mount_writable(
    metadata: &OwnedFd,
    objects: &Path,
    upper: &Path,
    work: &Path,
) -> Result<OwnedFd, Refusal> {
    let objects = open_folder(objects)?;
    build("overlay", Access::Write, |context| {
        configure_layers(context, metadata, &objects)?;
        fsconfig_set_string(context, "upperdir", upper)?;
        fsconfig_set_string(context, "workdir", work)?;
        fsconfig_set_string(context, "index", "off")?;
        fsconfig_set_string(context, "xino", "off")?;
        fsconfig_set_flag(context, "volatile")
    })
}

fn open_folder(path: &Path) -> Result<OwnedFd, Refusal> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|errno| Refusal {
        step: "folder of objects",
        message: String::new(),
        source: errno.into(),
    })
}

fn configure_layers(context: &OwnedFd, metadata: &OwnedFd, objects: &OwnedFd) -> rustix::io::Result<()> {
    fsconfig_set_string(context, "source", "kiln")?;
    fsconfig_set_string(context, "metacopy", "on")?;
    fsconfig_set_string(context, "redirect_dir", "on")?;
    fsconfig_set_fd(context, "lowerdir+", metadata)?;
    fsconfig_set_fd(context, "datadir+", objects)
}

/// What may be done with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

fn build(
    kind: &'static str,
    access: Access,
    configure: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>,
) -> Result<OwnedFd, Refusal> {
    let refused =
        |message: String, errno: rustix::io::Errno| Refusal { step: kind, message, source: errno.into() };
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| refused(String::new(), errno))?;
    let made = configure(&context).and_then(|()| {
        // What an image's device nodes name is none of its business; devices come from the provider.
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
        if access == Access::Read {
            fsconfig_set_flag(&context, "ro")?;
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        fsconfig_create(&context)?;
        fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    });
    made.map_err(|errno| refused(message_of(&context), errno))
}

/// Reads what the kernel has to say about a failed mount.
fn message_of(context: &OwnedFd) -> String {
    let mut message = String::new();
    let mut buffer = [0; MESSAGE_BYTES];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 || message.len() > MESSAGE_BYTES {
            break;
        }
        let line = String::from_utf8_lossy(&buffer[..length]);
        message.push_str(line.trim_end());
        message.push_str("; ");
    }
    message.trim_end_matches("; ").into()
}
