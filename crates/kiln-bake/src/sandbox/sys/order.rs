//! What a sandbox is told after its processes were forked.

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering};

use super::shared::{Shared, Slot};
use crate::sandbox::User;

/// What is to be run. Its mounts come over the socket: that of the root, and then those of `mounts`.
#[derive(Debug)]
pub(in crate::sandbox) struct Order<'a> {
    pub(in crate::sandbox) argv: &'a [String],
    pub(in crate::sandbox) env: &'a BTreeMap<String, String>,
    /// The work folder: `lower`, `upper`, `work` and `root` in it.
    pub(in crate::sandbox) folder: &'a [u8],
    /// The working folder inside; it must be there.
    pub(in crate::sandbox) workdir: &'a str,
    pub(in crate::sandbox) user: &'a User,
    /// Whether what is written to the root goes to `upper` already; else an overlay is laid over it.
    pub(in crate::sandbox) is_writable: bool,
    /// What is attached to the root.
    pub(in crate::sandbox) mounts: Vec<Attached<'a>>,
}

/// Something that is attached to the root.
#[derive(Debug)]
pub(in crate::sandbox) struct Attached<'a> {
    /// What of it is meant, below `/dev/.kiln`; none means all.
    pub(in crate::sandbox) inner: Option<String>,
    /// Where, from the new root.
    pub(in crate::sandbox) target: &'a [u8],
    pub(in crate::sandbox) read_only: bool,
    /// What takes what is written, where that is forgotten.
    pub(in crate::sandbox) over: Option<Over<String>>,
}

/// An overlay for one mount: folders of the work folder, and its options.
#[derive(Debug, Clone, Copy)]
pub(in crate::sandbox) struct Over<T> {
    pub(in crate::sandbox) lower: T,
    pub(in crate::sandbox) place: T,
    pub(in crate::sandbox) options: T,
}

/// Where an order is written for the processes that wait for it.
#[derive(Debug)]
pub(in crate::sandbox) struct Desk {
    shared: Shared,
    slot: &'static Slot<Jail>,
}

impl Desk {
    /// A desk with the memory in which `slot` is.
    pub(super) fn new(shared: Shared, slot: &'static Slot<Jail>) -> Self {
        Self { shared, slot }
    }

    /// Writes what is to be run. The processes read it when the first mount comes.
    pub(in crate::sandbox) fn write(&mut self, order: &Order<'_>) -> io::Result<()> {
        let shared = &mut self.shared;
        // SAFETY: only the jail refers to what is kept, and only the child reads it, which keeps its own mapping. It reads nothing
        // before the mounts are sent.
        unsafe {
            let mut mounts = Vec::with_capacity(order.mounts.len());
            for mounted in &order.mounts {
                let over = match &mounted.over {
                    Some(Over { lower, place, options }) => Some(Over {
                        lower: shared.text(lower.as_bytes())?,
                        place: shared.text(place.as_bytes())?,
                        options: shared.text(options.as_bytes())?,
                    }),
                    None => None,
                };
                let inner = mounted.inner.as_ref().map(|text| shared.text(text.as_bytes())).transpose()?;
                let (target, read_only) = (shared.text(mounted.target)?, mounted.read_only);
                mounts.push(Mount { inner, target, read_only, over });
            }
            let mut argv = Vec::with_capacity(order.argv.len() + 1);
            for word in order.argv {
                argv.push(shared.text(word.as_bytes())?.as_ptr());
            }
            let mut env = Vec::with_capacity(order.env.len() + 1);
            for (name, value) in order.env {
                env.push(shared.text(format!("{name}={value}").as_bytes())?.as_ptr());
            }
            let program = argv.first().copied().unwrap_or(c"".as_ptr());
            argv.push(std::ptr::null());
            env.push(std::ptr::null());
            // All bits zero is a valid number.
            let trees = shared.keep(&vec![0_i32; order.mounts.len() + 1])?;
            let jail = Jail {
                trees: &*(std::ptr::from_ref(trees) as *const [AtomicI32]),
                is_writable: order.is_writable,
                mounts: shared.keep(&mounts)?,
                folder: shared.text(order.folder)?,
                workdir: shared.text(order.workdir.as_bytes())?,
                uid: order.user.uid,
                gid: order.user.gid,
                groups: shared.keep(&order.user.groups)?,
                program,
                argv: shared.keep(&argv)?.as_ptr(),
                env: shared.keep(&env)?.as_ptr(),
            };
            self.slot.set(jail);
        }
        Ok(())
    }
}

/// What the child reads of an order.
#[derive(Debug)]
pub(super) struct Jail {
    /// The descriptors of the root and the mounts, as they came.
    pub(super) trees: &'static [AtomicI32],
    pub(super) is_writable: bool,
    pub(super) mounts: &'static [Mount],
    pub(super) folder: &'static CStr,
    pub(super) workdir: &'static CStr,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: &'static [u32],
    pub(super) program: *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) env: *const *const c_char,
}

// SAFETY: its pointers are those of memory that stays, and that nobody writes any more.
unsafe impl Send for Jail {}

impl Jail {
    /// The mounts with their descriptors.
    pub(super) fn mounts(&self) -> impl Iterator<Item = (RawFd, &'static Mount)> {
        let trees = self.trees.iter().skip(1).map(|tree| tree.load(Ordering::Relaxed));
        trees.zip(self.mounts)
    }

    pub(super) fn root(&self) -> RawFd {
        self.trees.first().map_or(-1, |tree| tree.load(Ordering::Relaxed))
    }
}

/// See [`Attached`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Mount {
    pub(super) inner: Option<&'static CStr>,
    pub(super) target: &'static CStr,
    pub(super) read_only: bool,
    pub(super) over: Option<Over<&'static CStr>>,
}
