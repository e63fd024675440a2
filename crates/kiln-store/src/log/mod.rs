//! The event log: one writer, one position, a hash chain, in SQLite.
//!
//! An append is one transaction, durable when it returns. The chain is computed here, over canonical bytes, never in SQL;
//! triggers refuse what would change or remove a line. What the chain can't see is a log that was cut at its end and is
//! whole otherwise, or written anew from its first entry: for that, others remember its head ([`Anchor`]), in their own
//! folders and formats.

mod database;
mod error;
mod row;
mod snapshot;
mod verify;

use std::fs::File;
use std::path::{Path, PathBuf};

use kiln_model::{Digest, Entry, EnvKey, Position};
use rusqlite::{Connection, TransactionBehavior};

pub use error::{AppendError, OpenLogError, ReadLogError};
pub use snapshot::{LogSnapshot, LogSnapshots, PassedOver};
pub use verify::{Anchor, Verification};

use database::{Access, io_error, is_full};
use row::Row;

/// At an open, this many entries at the end are verified; the rest is verified as it is read. A start stays fast, and what
/// a crash may have damaged is at the end.
const TAIL_ENTRIES: u64 = 1_000;

/// Entries are fetched in pages of this many, so that a long log is not held in memory.
const PAGE_ROWS: u64 = 500;

/// The log, open for reading, or for reading and appending.
#[derive(Debug)]
pub struct EventLog {
    folder: PathBuf,
    database: Connection,
    head: Head,
    /// Held by the writer; none for a reader.
    lock: Option<File>,
    /// Set once the outcome of an append is unknown: what is in memory may differ from what is on disk.
    stale: bool,
}

/// The end of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The position of the last entry; 0 where there is none.
    pub position: Position,
    /// The hash of the chain up to there; all zero where there is none.
    pub hash: Digest,
}

impl Head {
    /// The head of a log without entries.
    pub const EMPTY: Self = Self { position: Position(0), hash: Digest::new([0; 32]) };
}

impl EventLog {
    /// Opens the log of a state folder for appending, making it where there is none, and verifies its tail.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open(state: impl AsRef<Path>) -> Result<Self, OpenLogError> {
        let folder = state.as_ref().join("log");
        let lock = database::lock(&folder)?;
        Self::open_with(folder, Access::Write, Some(lock))
    }

    /// Opens the log of a state folder for reading, beside its writer.
    ///
    /// # Errors
    /// See [`OpenLogError`].
    pub fn open_read_only(state: impl AsRef<Path>) -> Result<Self, OpenLogError> {
        Self::open_with(state.as_ref().join("log"), Access::Read, None)
    }

    fn open_with(folder: PathBuf, access: Access, lock: Option<File>) -> Result<Self, OpenLogError> {
        let database = database::open(&folder, access)?;
        let mut log = Self { folder, database, head: Head::EMPTY, lock, stale: false };
        log.check_tail()?;
        Ok(log)
    }

    /// Returns the end of the log: for a writer as it is, for a reader as it was at the open.
    pub fn head(&self) -> Head {
        self.head
    }

    /// Returns the folder of the log.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends entries, whose positions follow `expected` without gaps, and returns once they are durable.
    ///
    /// # Errors
    /// See [`AppendError`]: only `Unknown` leaves it open whether they were appended.
    pub fn append(&mut self, expected: Position, entries: &[Entry]) -> Result<Head, AppendError> {
        self.check_appendable()?;
        if expected != self.head.position {
            return Err(AppendError::Conflict { expected, found: self.head.position });
        }
        let rows = row::chain(self.head, entries).map_err(|reason| AppendError::Invalid { reason })?;
        let Some(last) = rows.last() else { return Ok(self.head) };
        let head = Head { position: Position(last.position), hash: last.hash };
        self.transact(|database| row::insert(database, &rows))?;
        self.head = head;
        Ok(head)
    }

    /// Reads the entries from a position on, verifying the chain on the way; ends after the first error.
    pub fn read(&self, from: Position) -> impl Iterator<Item = Result<Entry, ReadLogError>> + use<'_> {
        self.rows(Position(from.0.max(1))).map(|row| row?.decode())
    }

    /// Reads the entries of one environment from a position on. Verifies each by itself, not the chain between them.
    pub fn read_env(
        &self,
        env: &EnvKey,
        from: Position,
    ) -> impl Iterator<Item = Result<Entry, ReadLogError>> + use<'_> {
        let env = env.clone();
        let page = move |after| row::page_of_env(&self.database, &env, after, PAGE_ROWS);
        verified(row::Pages::new(from.0.max(1) - 1, page))
    }

    /// Reads what the log says of an environment's rollouts, from a position on. Verifies each entry by itself.
    pub fn read_rollouts(
        &self,
        env: &EnvKey,
        from: Position,
    ) -> impl Iterator<Item = Result<Entry, ReadLogError>> + use<'_> {
        let env = env.clone();
        let page = move |after| row::page_of_rollouts(&self.database, &env, after, PAGE_ROWS);
        verified(row::Pages::new(from.0.max(1) - 1, page))
    }

    /// As [`EventLog::read_rollouts`], from the end of the log back: what came last comes first.
    pub fn read_rollouts_back(
        &self,
        env: &EnvKey,
    ) -> impl Iterator<Item = Result<Entry, ReadLogError>> + use<'_> {
        let env = env.clone();
        let page = move |before| row::page_of_rollouts_before(&self.database, &env, before, PAGE_ROWS);
        verified(row::Pages::new(u64::MAX, page))
    }

    fn rows(&self, from: Position) -> impl Iterator<Item = Result<Row, ReadLogError>> + use<'_> {
        let after = from.0 - 1;
        let start = match after {
            0 => Ok(Some(Digest::new([0; 32]))),
            _ => row::hash_at(&self.database, after),
        };
        let page = move |after| row::page(&self.database, after, PAGE_ROWS);
        row::Chained::new(row::Pages::new(after, page), after, start)
    }

    /// Verifies the end of the log against its chain, and finds its head.
    fn check_tail(&mut self) -> Result<(), OpenLogError> {
        let last = row::last_position(&self.database).map_err(|error| self.unreadable(&error))?;
        let from = Position(last.saturating_sub(TAIL_ENTRIES).max(1));
        let mut head = Head::EMPTY;
        for row in self.rows(from) {
            let row = row.map_err(OpenLogError::from_read(&self.folder))?;
            head = Head { position: Position(row.position), hash: row.hash };
        }
        self.head = head;
        Ok(())
    }

    fn check_appendable(&self) -> Result<(), AppendError> {
        if self.lock.is_none() {
            return Err(AppendError::Invalid { reason: "the log is open for reading only".into() });
        }
        if self.stale {
            let source = std::io::Error::other("an earlier append failed; the log must be opened again");
            return Err(AppendError::Unknown { source });
        }
        Ok(())
    }

    /// Runs `change` in one durable transaction.
    fn transact(
        &mut self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), AppendError> {
        let before = self.head.position.0;
        let result = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| (error, true))
            .and_then(|transaction| {
                change(&transaction).map_err(|error| (error, true))?;
                transaction.commit().map_err(|error| (error, false))
            });
        let Err((error, before_commit)) = result else { return Ok(()) };
        // A commit that failed for want of room wrote no whole commit record; look, so as not to trust that alone.
        let unchanged = row::last_position(&self.database).is_ok_and(|last| last == before);
        if unchanged && is_full(&error) {
            return Err(AppendError::Full);
        }
        self.stale = !(before_commit && unchanged);
        Err(AppendError::Unknown { source: io_error(error) })
    }

    fn unreadable(&self, error: &rusqlite::Error) -> OpenLogError {
        database::open_error(&self.folder, error)
    }
}

/// Entries of which each is verified by itself, and not the chain between them.
fn verified(
    rows: impl Iterator<Item = Result<Row, ReadLogError>>,
) -> impl Iterator<Item = Result<Entry, ReadLogError>> {
    rows.map(|row| {
        let row = row?;
        row.verify_self()?;
        row.decode()
    })
}

#[cfg(test)]
mod tests;
