//! Where steps and maintainer scripts run: namespaces of their own, a root of their own, no network unless asked.

mod filter;
mod limits;
mod ready;
mod sys;

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::cancel::Cancel;
use crate::secrets::Hidden;
pub(crate) use limits::Group;
use limits::Short;
pub use limits::StepLimits;
pub(crate) use ready::Ready;
use ready::Sandbox;
pub use sys::share_heap;
pub(crate) use sys::{die_with_parent, own_mounts_and_name};

/// The end of a step's output is kept for its error; what came before is rarely the reason.
const LOG_BYTES_MAX: usize = 64 << 10;

/// How soon a step that was called off ends.
const CANCEL_POLL: Duration = Duration::from_millis(100);

/// A command to run in the sandbox.
#[derive(Debug)]
pub(crate) struct Invocation<'a> {
    /// The program and its arguments.
    pub(crate) argv: &'a [String],
    /// The whole environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The working folder; it must be there.
    pub(crate) workdir: &'a str,
    /// Whom it runs as.
    pub(crate) user: User,
    /// Whether it keeps the host's network.
    pub(crate) network: bool,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// What it sees beside its root.
    pub(crate) mounts: &'a [SandboxMount],
    /// What may be neither in its output nor in what it changes.
    pub(crate) hidden: &'a Hidden,
}

/// Something that a command sees beside its root.
#[derive(Debug)]
pub(crate) struct SandboxMount {
    /// It, mounted and attached nowhere.
    pub(crate) tree: OwnedFd,
    /// What of it is meant, a name in its root; none means all.
    pub(crate) inner: Option<&'static str>,
    /// Where: an absolute path of the root that is shown, which is there and goes through no link.
    pub(crate) target: Vec<u8>,
    pub(crate) access: Access,
}

/// What a command may do with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// It writes, and nobody sees it afterwards.
    Forgotten,
}

/// Whom a step runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct User {
    /// The user.
    pub(crate) uid: u32,
    /// The group.
    pub(crate) gid: u32,
    /// The other groups.
    pub(crate) groups: Vec<u32>,
}

/// Why a step did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox could not be set up, or the program not be started in it.
    #[error("{} can't be started", .program.escape_debug())]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
        /// What was written until then.
        log: String,
    },
    /// It ended otherwise than with 0.
    #[error("{} ended with {status}", .program.escape_debug())]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its output.
        log: String,
    },
    /// It took too long.
    #[error("{} did not end within {limit:?}", .program.escape_debug())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it had.
        limit: Duration,
        /// The end of its output.
        log: String,
    },
    /// It used all memory or processes that steps may use, and ended for it.
    #[error("{} ended with {status}: it needed more than the {limit} that steps may use together", .program.escape_debug())]
    Exhausted {
        /// The program.
        program: String,
        /// How it ended.
        status: String,
        /// What there was, such as `4 GiB of memory`.
        limit: String,
        /// The end of its output.
        log: String,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl SandboxError {
    /// Returns the end of the step's output.
    pub fn log(&self) -> &str {
        match self {
            Self::Start { log, .. }
            | Self::Failed { log, .. }
            | Self::TimedOut { log, .. }
            | Self::Exhausted { log, .. } => log,
            Self::Cancelled => "",
        }
    }
}

/// What a command has as its root, mounted and attached nowhere.
#[derive(Debug)]
pub(crate) enum Ground {
    /// A tree: an overlay is laid over it.
    Tree(OwnedFd),
    /// A tree under an overlay already, whose upper folder is `work/upper`.
    Writable(OwnedFd),
}

impl Ground {
    /// Returns the mount.
    pub(crate) fn mount(&self) -> &OwnedFd {
        match self {
            Self::Tree(mount) | Self::Writable(mount) => mount,
        }
    }
}

/// What the kernel still takes down after a command has ended: its namespaces with their mounts, and its control groups.
/// Dropped, it waits for that; nobody else needs to.
#[derive(Debug)]
pub(crate) struct Remains(#[expect(dead_code, reason = "it is dropped some time")] Sandbox);

/// Runs a command over a tree, in `ready`; what it changes is in `work/upper` afterwards.
///
/// `work` is a folder on a file system that an overlay accepts, and empty but for that of `ground`. `group` is the one whose limits it has.
pub(crate) fn run(
    invocation: &Invocation<'_>,
    ready: Ready,
    ground: Ground,
    work: &Path,
    group: &Group,
    cancel: &Cancel,
) -> Result<Remains, SandboxError> {
    let program = invocation.argv.first().cloned().unwrap_or_default();
    let cannot = |source, log| SandboxError::Start { program: program.clone(), source, log };
    let begun = ready.wait().and_then(|mut sandbox| {
        order(invocation, &ground, work, &mut sandbox)?;
        Ok((sandbox.output().ok_or(io::ErrorKind::NotConnected)?, sandbox))
    });
    // The sandbox has mounts of its own now, and with it they are to end.
    drop(ground);
    let (mut output, mut sandbox) = begun.map_err(|source| cannot(source, String::new()))?;
    let reader = std::thread::spawn(move || tail(&mut output));
    let ended = sandbox.ended(invocation.timeout, cancel);
    if !matches!(ended, Ok(Ended::Exit(_))) {
        // That closes the pipe, too.
        sandbox.kill();
    }
    let log = invocation.hidden.cover(reader.join().unwrap_or_default());
    match ended {
        Ok(Ended::Exit(status)) if status.success() => Ok(Remains(sandbox)),
        Ok(Ended::Exit(status)) => {
            let (limits, status) = (group.limits(), status.to_string());
            let limit = match sandbox.own.short() {
                Some(Short::Memory) => format!("{} of memory", limits.memory),
                Some(Short::Pids) => format!("{} processes", limits.pids),
                None => return Err(SandboxError::Failed { program, status, log }),
            };
            Err(SandboxError::Exhausted { program, status, limit, log })
        }
        Ok(Ended::TimedOut) => Err(SandboxError::TimedOut { program, limit: invocation.timeout, log }),
        Ok(Ended::Cancelled) => Err(SandboxError::Cancelled),
        Err(source) => Err(cannot(source, log)),
    }
}

/// Tells a sandbox what is to be run.
fn order(invocation: &Invocation<'_>, ground: &Ground, work: &Path, sandbox: &mut Sandbox) -> io::Result<()> {
    for folder in ["lower", "upper", "work", "root"] {
        fs::create_dir_all(work.join(folder))?;
    }
    let workdir = if invocation.workdir.is_empty() { "/" } else { invocation.workdir };
    let mounts = invocation.mounts.iter().enumerate();
    let mounts = mounts.map(|(index, mount)| attached(index, mount, work)).collect::<io::Result<_>>()?;
    let (root, is_writable) = match ground {
        Ground::Tree(tree) => (tree, false),
        Ground::Writable(root) => (root, true),
    };
    let order = sys::Order {
        argv: invocation.argv,
        env: invocation.env,
        folder: work.as_os_str().as_bytes(),
        workdir,
        user: &invocation.user,
        is_writable,
        mounts,
    };
    let trees = [root].into_iter().chain(invocation.mounts.iter().map(|mount| &mount.tree));
    sandbox.order(&order, &trees.map(AsFd::as_fd).collect::<Vec<BorrowedFd<'_>>>())
}

fn attached<'a>(index: usize, mount: &'a SandboxMount, work: &Path) -> io::Result<sys::Attached<'a>> {
    let over = match mount.access {
        Access::Forgotten => {
            let name = |part: &str| format!("mount{index}.{part}");
            for part in ["lower", "upper", "work", "root"] {
                fs::create_dir(work.join(name(part)))?;
            }
            let [lower, upper, scratch] = ["lower", "upper", "work"].map(name);
            let shown = mount.inner.map_or(lower.clone(), |name| format!("{lower}/{name}"));
            let options = format!(
                "lowerdir={shown},upperdir={upper},workdir={scratch},volatile,redirect_dir=off,metacopy=off,index=off,xino=off"
            );
            Some(sys::Over { lower, place: name("root"), options })
        }
        Access::Read | Access::Write => None,
    };
    // An overlay shows it already.
    let inner = mount.inner.filter(|_| over.is_none());
    Ok(sys::Attached {
        inner: inner.map(|name| format!("/dev/.kiln/{name}")),
        target: &mount.target,
        read_only: mount.access == Access::Read,
        over,
    })
}

/// How a command ended, or why nobody waits for it any more.
pub(crate) enum Ended {
    Exit(ExitStatus),
    TimedOut,
    Cancelled,
}

/// Waits for a command; one that goes on too long, or was called off, is left to whoever asked.
pub(crate) fn wait(child: &mut Child, limit: Duration, cancel: &Cancel) -> io::Result<Ended> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
    match readable(&pidfd, limit, cancel)? {
        Some(given_up) => Ok(given_up),
        None => child.wait().map(Ended::Exit),
    }
}

/// Waits until a descriptor can be read; or returns why nobody waits any longer.
fn readable(fd: impl AsFd, limit: Duration, cancel: &Cancel) -> io::Result<Option<Ended>> {
    let began = Instant::now();
    let pause = Timespec::try_from(CANCEL_POLL).expect("a tenth of a second is a valid span");
    loop {
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&pause)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        if cancel.is_set() {
            return Ok(Some(Ended::Cancelled));
        }
        if began.elapsed() > limit {
            return Ok(Some(Ended::TimedOut));
        }
    }
}

/// Reads to the end and returns the last of it.
fn tail(output: &mut impl Read) -> String {
    let mut kept: VecDeque<u8> = VecDeque::new();
    let (mut buffer, mut is_cut) = ([0; 8192], false);
    loop {
        match output.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                kept.extend(&buffer[..count]);
                let excess = kept.len().saturating_sub(LOG_BYTES_MAX);
                kept.drain(..excess);
                is_cut |= excess > 0;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    if is_cut && let Some(end) = kept.iter().position(|byte| *byte == b'\n') {
        // The rest of a line may be the rest of a secret, which nobody would know again.
        kept.drain(..=end);
    }
    String::from_utf8_lossy(kept.make_contiguous()).into_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_model::ByteSize;
    use rustix::mount::OpenTreeFlags;

    use super::*;

    /// The host's own root: what runs can change nothing of it.
    fn host() -> Ground {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        Ground::Tree(rustix::mount::open_tree(rustix::fs::CWD, "/", flags).unwrap())
    }

    fn shell(
        script: &str,
        change: impl FnOnce(&mut Invocation<'_>),
    ) -> (Result<(), SandboxError>, tempfile::TempDir) {
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        let argv = ["/bin/sh".into(), "-c".into(), script.into()];
        let env = BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]);
        let hidden = Hidden::default();
        let mut invocation = Invocation {
            argv: &argv,
            env: &env,
            workdir: "/",
            user: User::default(),
            network: false,
            timeout: Duration::from_secs(60),
            mounts: &[],
            hidden: &hidden,
        };
        change(&mut invocation);
        let group = Arc::new(Group::find(StepLimits { memory: ByteSize(256 << 20), pids: 64 }).unwrap());
        assert_eq!(group.unenforced(), None);
        let cancel = Cancel::default();
        let ready = Ready::begin(&group, invocation.network).unwrap();
        (run(&invocation, ready, host(), work.path(), &group, &cancel).map(drop), work)
    }

    #[test]
    fn what_a_step_changes_lands_in_the_upper_folder_only() {
        let (done, work) = shell("echo hello > /kiln-sandbox-test && mkdir /kiln-sandbox-dir", |_| {});
        done.unwrap();
        assert_eq!(fs::read(work.path().join("upper/kiln-sandbox-test")).unwrap(), b"hello\n");
        assert!(!Path::new("/kiln-sandbox-test").exists());
    }

    #[test]
    fn a_step_has_a_host_name_a_pid_space_and_no_network_of_its_own() {
        let script = "test $(hostname) = kiln && test $$ -lt 10 && test $(umask) = 0022 && \
            ! grep -qv -e lo: -e '|' /proc/net/dev && test -c /dev/null && test -z \"$HOME\" && \
            test $(cat /proc/1/comm) = init";
        shell(script, |_| {}).0.unwrap();
    }

    #[test]
    fn a_step_can_not_make_devices_mount_or_write_the_kernels_settings() {
        for script in [
            "mknod /x b 8 0",
            "mount -t tmpfs x /mnt",
            "echo 1 > /proc/sys/kernel/panic",
            "echo h > /proc/sysrq-trigger",
        ] {
            let error = shell(script, |_| {}).0.unwrap_err();
            assert!(matches!(error, SandboxError::Failed { .. }), "{script}: {error}");
        }
    }

    #[test]
    fn a_failing_step_shows_the_end_of_its_output() {
        let error = shell("echo first; echo last >&2; exit 3", |_| {}).0.unwrap_err();
        assert_eq!(error.log(), "first\nlast\n");
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        let error = shell("kill -9 $$", |_| {}).0.unwrap_err();
        assert!(error.to_string().contains("exit status: 137"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_can_not_be_started() {
        let argv = ["/no/such/program".to_owned()];
        let (done, _work) = {
            let work = tempfile::tempdir_in("/var/tmp").unwrap();
            let env = BTreeMap::new();
            let invocation = Invocation {
                argv: &argv,
                env: &env,
                workdir: "",
                user: User::default(),
                network: false,
                timeout: Duration::from_secs(60),
                mounts: &[],
                hidden: &Hidden::default(),
            };
            let group = Arc::new(Group::find(StepLimits::default()).unwrap());
            let ready = Ready::begin(&group, false).unwrap();
            (run(&invocation, ready, host(), work.path(), &group, &Cancel::default()), work)
        };
        assert!(matches!(done, Err(SandboxError::Start { .. })), "{done:?}");
    }

    #[test]
    fn a_step_that_hangs_is_ended_with_all_that_it_started() {
        let (done, _work) =
            shell("sleep 1000 & sleep 1000", |step| step.timeout = Duration::from_millis(200));
        assert!(matches!(done, Err(SandboxError::TimedOut { .. })), "{done:?}");
    }

    #[test]
    fn a_step_runs_as_the_user_that_it_names() {
        let (done, _work) =
            shell("test $(id -u) = 33 && test $(id -g) = 34 && test \"$(id -G)\" = '34 50'", |step| {
                step.user = User { uid: 33, gid: 34, groups: vec![50] };
            });
        done.unwrap();
    }

    /// The number that a system call fails with; 0 where it succeeds.
    fn errno_of(call: libc::c_long, arguments: &str) -> i32 {
        let script = format!("exec perl -e 'syscall({call}, {arguments}) == -1 or exit 0; exit $!+0'");
        match shell(&script, |_| {}).0 {
            Ok(()) => 0,
            Err(SandboxError::Failed { status, .. }) => {
                status.strip_prefix("exit status: ").unwrap().parse().unwrap()
            }
            Err(other) => panic!("{other}: {}", other.log()),
        }
    }

    #[test]
    fn what_reaches_past_the_namespaces_is_refused() {
        const CLONE_NEWUSER: u32 = 0x1000_0000;
        for (call, arguments) in [
            (libc::SYS_unshare, format!("{CLONE_NEWUSER}")),
            (libc::SYS_clone, format!("{}, 0, 0, 0, 0", CLONE_NEWUSER | 17)),
            (libc::SYS_keyctl, "0, -3, 1".into()),
            (libc::SYS_io_uring_setup, "0, 0".into()),
            (libc::SYS_bpf, "0, 0, 0".into()),
            (libc::SYS_userfaultfd, "0".into()),
            (libc::SYS_socket, "40, 1, 0".into()),
        ] {
            assert_eq!(errno_of(call, &arguments), libc::EPERM, "call {call}");
        }
        assert_eq!(errno_of(libc::SYS_clone3, "0, 0"), libc::ENOSYS);
        // The same calls as programs need them.
        assert_eq!(errno_of(libc::SYS_socket, "2, 1, 0"), 0);
        shell("/usr/sbin/chroot / /bin/true && mkfifo /fifo && chown 33:34 /fifo && (exit 0) | cat", |_| {})
            .0
            .unwrap();
    }

    #[test]
    fn a_program_may_change_its_user_by_its_file_as_sudo_does() {
        let script = "cp /usr/bin/id /as-root && chmod 4755 /as-root && \
            exec perl -e '$( = $) = 33; $< = $> = 33; exec \"/as-root\", \"-u\"' > /id";
        let (done, work) = shell(script, |_| {});
        done.unwrap();
        assert_eq!(fs::read(work.path().join("upper/id")).unwrap(), b"0\n");
    }

    #[test]
    fn a_step_that_uses_too_much_memory_ends_and_is_told_of_the_limit() {
        // Rows of memory that is really touched: four times the limit.
        let script = "exec perl -e 'my @kept; push @kept, \"x\" x (1 << 20) for 1 .. 1024'";
        let error = shell(script, |_| {}).0.unwrap_err();
        assert!(matches!(error, SandboxError::Exhausted { .. }), "{error}");
        assert!(error.to_string().contains("256 MiB of memory"), "{error}");
    }

    #[test]
    fn a_fork_bomb_ends_at_the_limit_and_leaves_no_process() {
        let script = "i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i+1)); done";
        let began = Instant::now();
        let error = shell(script, |_| {}).0.unwrap_err();
        assert!(error.to_string().contains("64 processes"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for what is left");
    }
}
