//! What the process answers to its caller. The table in `docs/cli.md` is this enum, and a test compares them.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It was carried out and failed: a rollout went back, a test said no, something was found.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// `plan --detailed-exitcode` found changes; Terraform's number.
    Changes,
    /// It was refused and nothing changed: not root, a stale plan, another origin, an unknown revision.
    Refused,
    /// The stack has errors.
    Config,
    /// Something outside failed: a mirror, the disk, Kiln's own processes.
    External,
    /// A defect in Kiln.
    Bug,
    /// Ctrl-C: the rollout goes on without this command.
    Detached,
    /// Nobody reads the answer any more, so the rest of it was not looked for.
    Unread,
}

impl Exit {
    /// All of them, in the order of the documentation.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Changes,
        Self::Refused,
        Self::Config,
        Self::External,
        Self::Bug,
        Self::Detached,
        Self::Unread,
    ];

    /// The number that the shell sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            // Both by precedent: clap and most tools use 2 for usage, Terraform uses 2 for a plan with changes.
            Self::Usage | Self::Changes => 2,
            Self::Refused => 3,
            Self::Config => 4,
            Self::External => 5,
            // EX_SOFTWARE of sysexits.h.
            Self::Bug => 70,
            // 128 + SIGINT, as a shell reports it.
            Self::Detached => 130,
            // 128 + SIGPIPE, as a shell reports a tool whose reader left.
            Self::Unread => 141,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_code_is_in_the_documentation() {
        let page = include_str!("../../../../docs/cli.md");
        for exit in Exit::ALL {
            let row = format!("| {} |", exit.code());
            assert!(page.contains(&row), "docs/cli.md lacks a row for {exit:?}: `{row}`");
        }
    }
}
