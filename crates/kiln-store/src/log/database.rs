//! The SQLite file: how it is opened, locked, and what is in it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use kiln_model::Position;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::OpenLogError;

/// `PRAGMA user_version` of the layout below.
const FORMAT: i64 = 1;

/// `PRAGMA application_id`: "kiln", so that `file` and a person can tell what it is.
const APPLICATION_ID: i64 = 0x6b69_6c6e;

/// A reader and the writer hold each other up for milliseconds, at a checkpoint; beyond this something is stuck.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const LAYOUT: &str = "
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    term INTEGER NOT NULL,
    actor TEXT NOT NULL,
    stack TEXT,
    env TEXT,
    kind TEXT NOT NULL,
    schema INTEGER NOT NULL,
    body TEXT NOT NULL,
    prev_hash BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE INDEX events_of_env ON events (stack, env, position);
CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'the log is never changed'); END;
CREATE TRIGGER events_are_never_removed BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'the log is never shortened'); END;
";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

/// Makes the folder where there is none, and takes the one writer's lock, which ends with its process.
pub(super) fn lock(folder: &Path) -> Result<File, OpenLogError> {
    let failed = |source| OpenLogError::Io { folder: folder.into(), source };
    fs::create_dir_all(folder).map_err(failed)?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(folder.join("lock"));
    let file = file.map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(OpenLogError::Locked { folder: folder.into() }),
        Err(errno) => Err(failed(errno.into())),
    }
}

pub(super) fn open(folder: &Path, access: Access) -> Result<Connection, OpenLogError> {
    let path = folder.join("events.db");
    let flags = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        Access::Read if path.exists() => OpenFlags::SQLITE_OPEN_READ_ONLY,
        Access::Read => return Err(OpenLogError::Missing { folder: folder.into() }),
    };
    let failed = |error| open_error(folder, &error);
    let database =
        Connection::open_with_flags(&path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(failed)?;
    let found = prepare(&database, access).map_err(failed)?;
    match found {
        FORMAT => {}
        0 if access == Access::Write => create(&database).map_err(failed)?,
        // The writer made the file a moment ago and has not filled it yet.
        0 => return Err(OpenLogError::Missing { folder: folder.into() }),
        found => return Err(OpenLogError::Newer { found, known: FORMAT }),
    }
    if access == Access::Write {
        // The file's own name must survive a power cut before anything in it counts as durable.
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| OpenLogError::Io { folder: folder.into(), source })?;
    }
    Ok(database)
}

fn prepare(database: &Connection, access: Access) -> rusqlite::Result<i64> {
    database.busy_timeout(BUSY_TIMEOUT)?;
    if access == Access::Write {
        database.pragma_update(None, "journal_mode", "wal")?;
        // An append that returned must survive a power cut: NORMAL would lose it.
        database.pragma_update(None, "synchronous", "full")?;
    }
    database.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn create(database: &Connection) -> rusqlite::Result<()> {
    let transaction = database.unchecked_transaction()?;
    transaction.execute_batch(LAYOUT)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT)?;
    transaction.commit()
}

pub(super) fn open_error(folder: &Path, error: &rusqlite::Error) -> OpenLogError {
    if is_damage(error) {
        return OpenLogError::Damaged { position: Position(0), reason: error.to_string() };
    }
    OpenLogError::Io { folder: folder.into(), source: io::Error::other(error.to_string()) }
}

/// Whether SQLite itself says that the file is not what it wrote.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            error,
            rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
        )
}

pub(super) fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

pub(super) fn io_error(error: rusqlite::Error) -> io::Error {
    io::Error::other(error)
}
