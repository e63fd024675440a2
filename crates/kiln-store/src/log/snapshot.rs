//! Snapshots: what the log up to a position folds to. A convenience: each can be made again from the log.

use kiln_model::{Digest, Position};
use rusqlite::{Connection, params};

use super::{AppendError, EventLog, row};
use crate::shelf::sha256;

/// The one before the last is kept too, for when the last one turns out to be damaged.
const SNAPSHOTS_KEPT: i64 = 2;

impl EventLog {
    /// Saves what the log up to `position` folds to, so that a start need not fold all of it. Older ones are dropped.
    ///
    /// # Errors
    /// As [`EventLog::append`]; `Invalid` where the log has no such position. Failing is harmless.
    pub fn save_snapshot(&mut self, position: Position, bytes: &[u8]) -> Result<(), AppendError> {
        self.check_appendable()?;
        let log_hash = match row::hash_at(&self.database, position.0) {
            Ok(Some(hash)) => hash,
            _ => {
                let reason = format!("there is no entry at {position} to snapshot");
                return Err(AppendError::Invalid { reason });
            }
        };
        self.transact(|database| {
            database.execute(
                "INSERT OR REPLACE INTO snapshots VALUES (?1, ?2, ?3, ?4)",
                params![position.0 as i64, log_hash.as_bytes(), sha256(bytes).as_bytes(), bytes],
            )?;
            database.execute(
                "DELETE FROM snapshots WHERE position NOT IN
                 (SELECT position FROM snapshots ORDER BY position DESC LIMIT ?1)",
                [SNAPSHOTS_KEPT],
            )?;
            Ok(())
        })
    }

    /// Returns the latest snapshot that is whole and belongs to this log; one that is not is passed over.
    pub fn latest_snapshot(&self) -> Option<(Position, Vec<u8>)> {
        positions(&self.database).into_iter().find_map(|position| {
            let (log_hash, digest, bytes) = fetch(&self.database, position).ok()?;
            let of_this_log = row::hash_at(&self.database, position as u64).ok()? == Some(log_hash);
            (of_this_log && sha256(&bytes) == digest).then_some((Position(position as u64), bytes))
        })
    }
}

fn positions(database: &Connection) -> Vec<i64> {
    let query = || -> rusqlite::Result<Vec<i64>> {
        let mut statement = database.prepare("SELECT position FROM snapshots ORDER BY position DESC")?;
        statement.query_map([], |row| row.get(0))?.collect()
    };
    // Unreadable is as good as absent: the log is folded from its first entry.
    query().unwrap_or_default()
}

fn fetch(database: &Connection, position: i64) -> rusqlite::Result<(Digest, Digest, Vec<u8>)> {
    let sql = "SELECT log_hash, digest, bytes FROM snapshots WHERE position = ?1";
    database.query_row(sql, [position], |row| {
        Ok((Digest::new(row.get(0)?), Digest::new(row.get(1)?), row.get(2)?))
    })
}
