//! Which system calls a step is refused.
//!
//! A step is root in namespaces of its own, with few capabilities, and runs what packages bring: everything that a program
//! needs is allowed. Refused is what reaches the kernel past the namespaces, or the machine behind them. A list of what is
//! refused is complete because calls newer than it are refused, too.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

/// Refused with EPERM, as they are for want of a capability.
const REFUSED: &[libc::c_long] = &[
    // Other mounts would show what the sandbox hides; most of these need no more than a namespace of a user's own.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    // Namespaces give back capabilities, and with them most of the kernel's faults of the last years; clone is below.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Keyrings belong to a user of the machine, not to a namespace.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Code in the kernel, and views into it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_syslog,
    libc::SYS_kcmp,
    // The machine and its memory.
    libc::SYS_reboot,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_acct,
    libc::SYS_vhangup,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_kexec_file_load, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// The flags of clone(2) that make a namespace: mount, cgroup, uts, ipc, user, pid, net.
const NAMESPACES: [u64; 7] =
    [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Sockets to the hypervisor know no namespaces.
const AF_VSOCK: u64 = 40;

/// The newest call that was considered for the list; whatever comes after it gets ENOSYS, so that a C library falls back.
const NEWEST_KNOWN: libc::c_long = libc::SYS_mseal;

/// The compiled filters, in the order in which they are installed.
#[derive(Debug)]
pub(super) struct Filters(pub(super) [BpfProgram; 2]);

impl Filters {
    /// Compiles them for this machine.
    pub(super) fn compile() -> Result<Self, seccompiler::Error> {
        Ok(Self([refused()?, unknown()]))
    }
}

fn refused() -> Result<BpfProgram, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let flags = NAMESPACES.iter().map(|flag| when(SeccompCmpOp::MaskedEq(*flag), *flag));
    rules.insert(libc::SYS_clone, flags.collect::<Result<_, _>>()?);
    rules.insert(libc::SYS_socket, vec![when(SeccompCmpOp::Eq, AF_VSOCK)?]);
    let arch = std::env::consts::ARCH.try_into().map_err(seccompiler::Error::Backend)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch);
    filter.and_then(TryInto::try_into).map_err(seccompiler::Error::Backend)
}

/// Holds if the first argument does.
fn when(operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, seccompiler::Error> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, operator, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(seccompiler::Error::Backend)
}

/// ENOSYS for what is newer than the list, for the calls of the x32 ABI, whose numbers are higher than all, and for clone3,
/// whose flags a filter can't see: C libraries then use clone.
fn unknown() -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        // The number is the first word of seccomp_data.
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, 2, 0, libc::SYS_clone3 as u32),
        instruction(JUMP_IF_GREATER, 1, 0, NEWEST_KNOWN as u32),
        instruction(RETURN, 0, 0, ALLOW),
        instruction(RETURN, 0, 0, ERRNO | libc::ENOSYS as u32),
    ]
}
