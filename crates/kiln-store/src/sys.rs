//! Loop devices: the system calls that rustix has no safe form of.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl};

/// `LOOP_CTL_GET_FREE` and `LOOP_CONFIGURE` of `linux/loop.h`.
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_CONFIGURE: Opcode = 0x4C0A;

const LO_FLAGS_READ_ONLY: u32 = 1;
/// The device frees itself once nothing has it open or mounted any more.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// Somebody else may take the free device first; after this many times it is not chance.
const ATTEMPTS_MAX: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

struct GetFree;

// SAFETY: LOOP_CTL_GET_FREE takes no argument and returns the number of a device; it touches no memory of ours.
unsafe impl Ioctl for GetFree {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(out)
    }
}

/// A loop device over a file, read-only. It goes away once this is closed and what was mounted from it is unmounted.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    pub(crate) path: String,
    _device: File,
}

/// Puts a loop device over `file`.
pub(crate) fn attach_loop(file: &File, block_bytes: u32) -> io::Result<LoopDevice> {
    let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
    for _ in 0..ATTEMPTS_MAX {
        // SAFETY: the descriptor is /dev/loop-control, which this call belongs to.
        let number = unsafe { ioctl(&control, GetFree) }?;
        let path = format!("/dev/loop{number}");
        let device = File::open(&path)?;
        match configure(&device, file, block_bytes) {
            Ok(()) => return Ok(LoopDevice { path, _device: device }),
            Err(Errno::BUSY) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(Errno::BUSY.into())
}

fn configure(device: &File, file: &File, block_bytes: u32) -> rustix::io::Result<()> {
    let fd = u32::try_from(file.as_fd().as_raw_fd()).expect("a descriptor that is open is not negative");
    let info = LoopInfo {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let config = LoopConfig { fd, block_size: block_bytes, info, reserved: [0; 8] };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`, which `LoopConfig` is field by field.
    let call = unsafe { Setter::<LOOP_CONFIGURE, LoopConfig>::new(config) };
    // SAFETY: the descriptor is a loop device, which this call belongs to; the call writes no memory of ours.
    unsafe { ioctl(device, call) }
}
