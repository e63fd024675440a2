//! A log that is not what was written is found out, nothing starts on it, and what runs is served meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::{Actor, Entry, Position};
use kiln_store::EventLog;

use crate::machine::{Machine, wait_for};

/// A Kiln whose edge and host remember the head of its log, and which is stopped with its instances running.
struct Stopped {
    machine: Machine,
    entries: Vec<Entry>,
    /// The log as it was.
    aside: PathBuf,
}

fn stopped() -> Stopped {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    wait_for("edge and host remember the head", || {
        let said = machine.kiln(&["audit", "verify"]).ok().out;
        let is_whole = said.contains(", anchored with edge and host at 20") && !said.contains("later event");
        is_whole.then_some(())
    });
    machine.kiln(&["host", "stop"]).ok();
    machine.wait_page("v1");
    let entries = EventLog::open(machine.state()).unwrap().read(Position(1)).map(Result::unwrap).collect();
    let aside = machine.state().join("log-aside");
    copy(&machine.state().join("log"), &aside);
    Stopped { machine, entries, aside }
}

/// Copies the files of a log; its snapshots are not needed.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|file| file.path().is_file()) {
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

impl Stopped {
    fn log(&self) -> PathBuf {
        self.machine.state().join("log")
    }

    /// Puts a log with these entries in the place of what was written.
    fn replace(&self, entries: &[Entry]) {
        let forged = tempfile::tempdir_in("/var/tmp").unwrap();
        EventLog::open(forged.path()).unwrap().append(Position(0), entries).unwrap();
        fs::remove_dir_all(self.log()).unwrap();
        copy(&forged.path().join("log"), &self.log());
    }

    /// Nobody starts on the log, the verification says why, and the page is served all the same.
    fn is_found_out(&self, why: &str) {
        let machine = &self.machine;
        machine.kiln(&["audit", "verify"]).fails_with(why);
        machine.wait_page("v1");
        let refused = machine.kiln(&["status"]).fails_with(why).fails_with("kiln host stop");
        assert_eq!(refused.code, 5, "it is nobody's mistake: {}", refused.err);
        machine.wait_page("v1");
        machine.kiln(&["host", "stop"]).ok();
        machine.wait_page("v1");
    }

    /// With the log as it was, Kiln goes on where it was.
    fn goes_on_with_a_whole_copy(self) {
        let Self { machine, aside, .. } = self;
        let log = machine.state().join("log");
        fs::remove_dir_all(&log).unwrap();
        copy(&aside, &log);
        machine.write_tiny("v2", 1, "");
        machine.kiln(&["up"]).ok();
        machine.wait_page("v2");
        machine.kiln(&["audit", "verify"]).ok();
    }
}

#[test]
fn a_truncated_log_is_found_out_and_a_whole_copy_goes_on() {
    let stopped = stopped();
    let kept = stopped.entries.len() - 2;
    stopped.replace(&stopped.entries[..kept]);
    stopped.is_found_out(&format!("the log ends at @{kept}, but edge"));
    stopped.goes_on_with_a_whole_copy();
}

#[test]
fn a_log_that_was_written_anew_with_a_whole_chain_is_found_out() {
    let stopped = stopped();
    let mut forged = stopped.entries.clone();
    let first = forged.iter_mut().find(|entry| matches!(entry.actor, Actor::User(_))).unwrap();
    first.actor = Actor::User("eve".into());
    stopped.replace(&forged);
    stopped.is_found_out("another entry here: the log was written anew");
    stopped.goes_on_with_a_whole_copy();
}

#[test]
fn an_edited_entry_is_found_out() {
    let stopped = stopped();
    let path = stopped.log().join("events.db");
    let mut bytes = fs::read(&path).unwrap();
    // Wherever it lies, also where the database left an older copy of a page.
    let (text, forged) = (b"controller_started", b"controller_stopped");
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + text.len()].copy_from_slice(forged);
    }
    fs::write(&path, bytes).unwrap();
    stopped.is_found_out("the entry was edited");
    stopped.goes_on_with_a_whole_copy();
}
