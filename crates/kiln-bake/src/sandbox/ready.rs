//! Sandboxes that begin before it is known what runs in them.
//!
//! A control group is joined when the kernel has waited for all processors, and namespaces with what lies in them take it a
//! while, too. All of that is the same for every step, so a bake begins it as soon as it knows that a command is to run.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};

use super::filter::Filters;
use super::limits::{Group, StepGroup};
use super::{Ended, readable, sys};
use crate::cancel::Cancel;

/// A sandbox that begins. Dropped, it ends, and leaves nothing.
#[derive(Debug)]
pub(crate) struct Ready {
    begun: Option<Receiver<io::Result<Sandbox>>>,
}

impl Ready {
    /// Begins a sandbox in a group of `group`, with the host's network or without any.
    pub(crate) fn begin(group: &Arc<Group>, network: bool) -> io::Result<Self> {
        let (tell, begun) = sync_channel(1);
        let (hand_over, keeper) = sync_channel(1);
        let group = Arc::clone(group);
        let thread = thread::Builder::new().name("sandbox".into()).spawn(move || {
            let limited = group.step();
            // The last of whoever has it removes it.
            drop(group);
            keep(limited, network, &tell, &keeper)
        })?;
        // It has room for one, and the thread has the other end.
        let _ = hand_over.send(thread);
        Ok(Self { begun: Some(begun) })
    }

    /// Waits until it has begun.
    pub(super) fn wait(mut self) -> io::Result<Sandbox> {
        let begun = self.begun.take().and_then(|begun| begun.recv().ok());
        // The thread ends without a word only by a panic.
        begun.unwrap_or_else(|| Err(io::Error::other("its thread is gone")))
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        // Only what has begun can be ended.
        drop(self.begun.take().map(|begun| begun.recv()));
    }
}

/// A sandbox that waits for its order, or does it.
#[derive(Debug)]
pub(super) struct Sandbox {
    life: Life,
    /// What is left behind by the command's group.
    pub(super) own: StepGroup,
    desk: sys::Desk,
    socket: OwnedFd,
    report: File,
    output: Option<File>,
}

impl Sandbox {
    /// Tells what is to be run. A sandbox that has ended by itself has reported why, and that is read later.
    pub(super) fn order(&mut self, order: &sys::Order<'_>, trees: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.desk.write(order)?;
        for tree in trees {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let one = [*tree];
            let has_room = control.push(SendAncillaryMessage::ScmRights(&one));
            debug_assert!(has_room, "there is room for one");
            match rustix::net::sendmsg(&self.socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)
            {
                Ok(_) => {}
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Returns where the command's output can be read, once.
    pub(super) fn output(&mut self) -> Option<File> {
        self.output.take()
    }

    /// Waits for the report of the outermost process, which comes before the kernel has taken the sandbox down. One that is killed
    /// reports nothing.
    pub(super) fn ended(&mut self, limit: Duration, cancel: &Cancel) -> io::Result<Ended> {
        if let Some(given_up) = readable(&self.report, limit, cancel)? {
            return Ok(given_up);
        }
        let mut bytes = [0; sys::Report::BYTES];
        match self.report.read_exact(&mut bytes) {
            Ok(()) => match sys::Report::read(bytes) {
                sys::Report::Ended(status) => Ok(Ended::Exit(ExitStatus::from_raw(i32::from(status) << 8))),
                sys::Report::Failed(errno) => Err(io::Error::from_raw_os_error(errno)),
            },
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.life.end().map(Ended::Exit).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Kills all in it.
    pub(super) fn kill(&self) {
        self.life.kill();
    }
}

/// The outermost process of a sandbox, and the thread that waits for it. Dropped, both end.
#[derive(Debug)]
struct Life {
    outermost: OwnedFd,
    keeper: Option<JoinHandle<Option<ExitStatus>>>,
}

impl Life {
    fn kill(&self) {
        // It may be gone already.
        let _ = rustix::process::pidfd_send_signal(&self.outermost, Signal::KILL);
    }

    /// Waits for its end, and returns how that was; none where the kernel did not tell.
    fn end(&mut self) -> Option<ExitStatus> {
        self.keeper.take()?.join().unwrap_or_default()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Killing the outermost process kills all in the sandbox.
        self.kill();
        self.end();
    }
}

/// Begins a sandbox, and stays until it has ended: the outermost process dies with the thread that forked it.
fn keep(
    own: StepGroup,
    network: bool,
    tell: &SyncSender<io::Result<Sandbox>>,
    keeper: &Receiver<JoinHandle<Option<ExitStatus>>>,
) -> Option<ExitStatus> {
    let begun = begin(own, network, || keeper.recv().ok());
    let pid = begun.as_ref().ok().map(|(pid, _)| *pid);
    // Whoever began it waits for this, always.
    let _ = tell.send(begun.map(|(_, sandbox)| sandbox));
    wait(pid?)
}

fn begin(
    mut own: StepGroup,
    network: bool,
    keeper: impl FnOnce() -> Option<JoinHandle<Option<ExitStatus>>>,
) -> io::Result<(Pid, Sandbox)> {
    let join = std::mem::take(&mut own.join);
    let filters = Filters::compile().map_err(io::Error::other)?;
    let input = OpenOptions::new().read(true).open("/dev/null")?;
    let (output, said) = pipe()?;
    let (report, told) = pipe()?;
    let (socket, waiting) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let ahead = sys::Ahead {
        network,
        join: &join,
        filters: &filters,
        input: &input,
        output: &said,
        socket: waiting.as_fd(),
        report: &told,
    };
    let (pid, desk) = sys::begin(&ahead)?;
    let outermost = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(outermost) => outermost,
        Err(errno) => {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            wait(pid);
            return Err(errno.into());
        }
    };
    let life = Life { outermost, keeper: keeper() };
    Ok((pid, Sandbox { life, own, desk, socket, report, output: Some(output) }))
}

fn wait(pid: Pid) -> Option<ExitStatus> {
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Some(ExitStatus::from_raw(status.as_raw())),
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Err(_) => return None,
        }
    }
}

fn pipe() -> io::Result<(File, File)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((reader.into(), writer.into()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};
    use std::time::Instant;

    use super::*;
    use crate::sandbox::StepLimits;

    /// Set for the process that is killed in a test.
    const VICTIM: &str = "KILN_TEST_VICTIM";

    /// What happens at once may take a slow machine a while.
    const WITHIN: Duration = Duration::from_secs(60);

    fn until(what: &str, is_so: impl Fn() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < WITHIN, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn is_gone(pid: &str) -> bool {
        // One whose parent died may wait for somebody to reap it.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    }

    /// Returns the processes of a sandbox that waits: the outermost, and the first in its namespaces.
    fn processes(sandbox: &Sandbox) -> [String; 2] {
        let fd = sandbox.life.outermost.as_raw_fd();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
        let outermost = info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim();
        let first = || fs::read_to_string(format!("/proc/{outermost}/task/{outermost}/children")).unwrap();
        until("its first process begins", || !first().trim().is_empty());
        [outermost.to_owned(), first().trim().to_owned()]
    }

    fn group() -> Arc<Group> {
        let group = Group::find(StepLimits::default()).unwrap();
        assert_eq!(group.unenforced(), None);
        Arc::new(group)
    }

    #[test]
    fn a_sandbox_that_nobody_uses_ends_and_leaves_no_process_and_no_group() {
        let group = group();
        let sandbox = Ready::begin(&group, false).unwrap().wait().unwrap();
        let (processes, folders) = (processes(&sandbox), sandbox.own.folders().to_vec());
        assert!(!folders.is_empty() && folders.iter().all(|folder| folder.exists()));
        drop(sandbox);
        assert!(is_gone(&processes[0]));
        until("the first process ends with the outermost", || is_gone(&processes[1]));
        assert!(!folders.iter().any(|folder| folder.exists()));
        // Nor does one that had no time to begin.
        drop(Ready::begin(&group, true).unwrap());
        assert_eq!(Arc::strong_count(&group), 1);
    }

    #[test]
    fn a_waiting_sandbox_holds_no_heap_and_no_file_of_the_bake() {
        let group = group();
        let file = tempfile::tempfile_in("/var/tmp").unwrap();
        let heap = vec![1_u8; 32 << 20];
        let sandbox = Ready::begin(&group, false).unwrap().wait().unwrap();
        let [_, first] = processes(&sandbox);
        let own = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let open = fs::read_dir(format!("/proc/{first}/fd")).unwrap();
        let open: Vec<_> = open.map(|entry| fs::read_link(entry.unwrap().path()).unwrap()).collect();
        assert!(open.len() >= 5 && !open.contains(&own), "{open:?}");
        let maps = fs::read_to_string(format!("/proc/{first}/maps")).unwrap();
        assert!(
            super::sys::dispensable(&maps, &[]).iter().all(|range| !range.contains(&heap.as_ptr().addr()))
        );
    }

    #[test]
    fn a_bake_that_is_killed_takes_its_waiting_sandbox_along() {
        if std::env::var_os(VICTIM).is_some() {
            let group = group();
            let sandbox = Ready::begin(&group, false).unwrap().wait().unwrap();
            println!("\nprocesses {}", processes(&sandbox).join(" "));
            thread::sleep(WITHIN);
            return;
        }
        let name = "sandbox::ready::tests::a_bake_that_is_killed_takes_its_waiting_sandbox_along";
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim.args([name, "--exact", "--nocapture"]).env(VICTIM, "1").stdout(Stdio::piped());
        let mut victim = victim.spawn().unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find_map(|line| line.strip_prefix("processes ").map(str::to_owned)).unwrap();
        let processes: Vec<_> = line.split(' ').collect();
        assert!(processes.iter().all(|pid| !is_gone(pid)));
        victim.kill().unwrap();
        victim.wait().unwrap();
        until("all processes end", || processes.iter().all(|pid| is_gone(pid)));
    }
}
