//! An edge in a process of its own: this test binary, started again.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use kiln_edge::client::{EdgeClient, EdgeEvent};

const STATE: &str = "KILN_EDGE_TEST_STATE";

/// Not a test: the edge that the tests start, when they say with which state folder.
#[test]
fn edge_process() {
    if let Some(state_dir) = std::env::var_os(STATE) {
        kiln_edge::run(kiln_edge::EdgeConfig { state_dir: state_dir.into() }).unwrap();
    }
}

/// A running edge; killed when dropped.
pub(crate) struct EdgeProcess {
    child: Child,
    pub(crate) client: EdgeClient,
    pub(crate) events: Receiver<EdgeEvent>,
}

impl EdgeProcess {
    pub(crate) fn start(state: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process::edge_process", "--nocapture", "--test-threads=1"]);
        command.env(STATE, state).stdout(Stdio::null()).process_group(0);
        let child = command.spawn().unwrap();
        let (client, events) = eventually(|| EdgeClient::connect(&state.join("run/edge.sock")).ok());
        Self { child, client, events }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Kills it while others use it; `kill` then waits for its end.
    pub(crate) fn signal_kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }
}

impl Drop for EdgeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until there is an answer; the generous bound only ends a test that hangs.
pub(crate) fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}
