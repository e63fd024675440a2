//! Who a process is: a pid alone is reused, so its start time goes with it.

use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};

/// A process of this boot, told apart from a later one with the same pid by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub(crate) pid: u32,
    /// Clock ticks after boot: field 22 of `/proc/PID/stat`.
    pub(crate) start: u64,
}

impl ProcessId {
    /// The calling process.
    pub(crate) fn current() -> Self {
        // Asked for once per stored file; a child that was forked has another pid and looks again.
        static KNOWN: Mutex<Option<ProcessId>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id();
        match *known {
            Some(id) if id.pid == pid => id,
            _ => {
                // Without /proc nobody can tell processes apart: 0 then never matches a live one, and the file is swept.
                let id = Self { pid, start: start_of(pid).unwrap_or(0) };
                *known = Some(id);
                id
            }
        }
    }

    /// Whether this very process still exists.
    pub(crate) fn is_alive(self) -> bool {
        start_of(self.pid) == Some(self.start)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (pid, start) = text.split_once('.')?;
        Some(Self { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.pid, self.start)
    }
}

fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold spaces and parentheses, so count from the last one.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_process_is_alive_and_one_that_started_at_another_time_is_not() {
        let me = ProcessId::current();
        assert!(me.is_alive());
        assert!(!ProcessId { start: me.start + 1, ..me }.is_alive());
        assert_eq!(ProcessId::parse(&me.to_string()), Some(me));
    }
}
