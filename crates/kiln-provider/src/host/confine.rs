//! From a forked process to the program: user, limits, capabilities, system call filter, exec.

use std::ffi::CString;
use std::path::Path;

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, getrlimit, setrlimit, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use super::boot::{Failure, Program};
use super::seccomp::Filters;
use super::user::Identity;
use crate::sys;

/// Where a program is looked for if the environment does not say: Docker's default.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Between what old programs that use select(2) bear and what servers ask for; as root of the hard limit systemd gives its
/// services the same.
const OPEN_FILES: (u64, u64) = (65_536, 524_288);
/// What the kernel gives its first process: it is also how large a thread's stack is unless the program says.
const STACK_BYTES: u64 = 8 << 20;
/// The kernel's and systemd's. Memory as such is the cgroup's to limit.
const LOCKED_BYTES: u64 = 8 << 20;

/// All that a shell, a cron daemon or an init system may have set for whom it started: first soft, then hard, none where
/// there is no end. What an instance may do must not depend on who ran the first `kiln` command.
const LIMITS: [(Resource, Option<u64>, Option<u64>); 12] = [
    (Resource::Nofile, Some(OPEN_FILES.0), Some(OPEN_FILES.1)),
    (Resource::Stack, Some(STACK_BYTES), None),
    (Resource::Memlock, Some(LOCKED_BYTES), Some(LOCKED_BYTES)),
    // A core file would go to the root, which is read-only, or to memory.
    (Resource::Core, Some(0), Some(0)),
    // The cgroup counts this instance's processes; this counts all that a user has on the machine.
    (Resource::Nproc, None, None),
    (Resource::As, None, None),
    (Resource::Data, None, None),
    (Resource::Fsize, None, None),
    (Resource::Cpu, None, None),
    (Resource::Locks, None, None),
    (Resource::Nice, Some(0), Some(0)),
    (Resource::Rtprio, Some(0), Some(0)),
];

/// Docker's, and every distribution's.
const UMASK: u32 = 0o022;

/// Becomes the program. Returns only why it can't.
///
/// `compiled` are the filters for the default capabilities, which need not be compiled again.
pub(crate) fn become_program(
    program: &Program,
    user: &Identity,
    compiled: &(u64, Filters),
    hostname: &str,
) -> Failure {
    match restrict(program, user, compiled) {
        Ok(()) => execute(program, user, hostname),
        Err(failure) => failure,
    }
}

fn restrict(program: &Program, user: &Identity, compiled: &(u64, Filters)) -> Result<(), Failure> {
    // Fails only where the caller leads a session already, which does as well.
    let _ = setsid();
    umask(UMASK.into());
    sys::reset_signals();
    limit_resources();
    rustix::process::chdir(&*program.workdir).map_err(|error| {
        Failure::Refused(format!(
            "the working folder {} can't be entered: {}",
            program.workdir,
            std::io::Error::from(error)
        ))
    })?;
    // Compiled before the user changes: afterwards memory may be all that this process still can ask for.
    let own;
    let filters = if compiled.0 == program.bounding {
        &compiled.1
    } else {
        own = Filters::compile(program.bounding)
            .map_err(|e| Failure::Failed(format!("cannot compile the filter: {e}")))?;
        &own
    };
    drop_privileges(program, user).map_err(Failure::step("give up privileges"))?;
    filters.install().map_err(|e| Failure::Failed(format!("cannot install the system call filter: {e}")))
}

fn limit_resources() {
    for (resource, soft, hard) in LIMITS {
        if setrlimit(resource, Rlimit { current: soft, maximum: hard }).is_ok() {
            continue;
        }
        // A limit that can't be raised stays where it is: root of a container may lack CAP_SYS_RESOURCE.
        let most = getrlimit(resource).maximum;
        let within = |wanted: Option<u64>| [wanted, most].into_iter().flatten().min();
        let _ = setrlimit(resource, Rlimit { current: within(soft), maximum: within(hard) });
    }
}

fn drop_privileges(program: &Program, user: &Identity) -> Result<(), Errno> {
    for number in 0..u64::BITS {
        let bit = 1 << number;
        if program.bounding & bit != 0 {
            continue;
        }
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(bit)) {
            // Beyond the last one that this kernel knows.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    let is_root = user.uid == 0;
    let kept = if is_root { program.bounding } else { program.added };
    set_keep_capabilities(!is_root && kept != 0)?;
    let groups: Vec<Gid> = user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)?;
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    let set = CapabilitySet::from_bits_retain(kept);
    // Ambient capabilities survive an exec by a user other than root, and must be inheritable for that.
    let inheritable = if is_root { CapabilitySet::empty() } else { set };
    set_capabilities(None, CapabilitySets { effective: set, permitted: set, inheritable })?;
    if !is_root {
        for number in (0..u64::BITS).filter(|number| kept & 1 << number != 0) {
            configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)?;
        }
    }
    set_no_new_privs(true)
}

fn execute(program: &Program, user: &Identity, hostname: &str) -> Failure {
    let Some(name) = program.argv.first() else { return Failure::Refused("there is no command".into()) };
    let mut env: Vec<String> = program.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let has = |wanted: &str| program.env.iter().any(|(key, _)| key == wanted);
    for (key, value) in [("PATH", PATH_DEFAULT), ("HOME", &*user.home), ("HOSTNAME", hostname)] {
        if !has(key) {
            env.push(format!("{key}={value}"));
        }
    }
    let (Ok(argv), Ok(env)) = (c_strings(&program.argv), c_strings(&env)) else {
        return Failure::Refused("the command or its environment holds a zero byte".into());
    };
    let path = program.env.iter().find(|(key, _)| key == "PATH").map_or(PATH_DEFAULT, |(_, value)| value);
    let mut denied = false;
    for candidate in candidates(name, path) {
        let Ok(file) = CString::new(candidate.as_str()) else { continue };
        let error = sys::execute(&file, &argv, &env);
        match Errno::from_io_error(&error) {
            // The file itself may be there: what is missing can be its interpreter.
            Some(Errno::NOENT | Errno::NOTDIR) if !Path::new(&candidate).exists() => {}
            // Go on as a shell would: another folder may hold one that can be executed.
            Some(Errno::ACCESS) => denied = true,
            _ => return refusal(&candidate, &error),
        }
    }
    Failure::Refused(match denied {
        true => format!("`{name}` is not executable, or not for user {}", user.uid),
        false if name.contains('/') => format!("`{name}` does not exist in the image"),
        false => format!("`{name}` does not exist in the image's PATH ({path})"),
    })
}

fn refusal(path: &str, error: &std::io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR) => Failure::Refused(format!(
            "`{path}` is in the image, but the interpreter or loader that it names is not"
        )),
        Some(Errno::NOEXEC) => Failure::Refused(format!(
            "`{path}` is not a program for this machine: another architecture, or a script without `#!`"
        )),
        Some(Errno::AGAIN | Errno::NOMEM) => Failure::Failed(format!("cannot execute `{path}`: {error}")),
        _ => Failure::Refused(format!("cannot execute `{path}`: {error}")),
    }
}

fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.map(|folder| format!("{folder}/{name}")).collect()
}

fn c_strings(texts: &[String]) -> Result<Vec<CString>, std::ffi::NulError> {
    texts.iter().map(|text| CString::new(text.as_str())).collect()
}
