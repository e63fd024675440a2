//! A line of the log as it is stored, and the chain that holds the lines together.

use kiln_model::{Actor, Digest, Entry, EnvKey, EnvName, Position, StackName, Term, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest as _, Sha256};

use super::database::{io_error, is_damage};
use super::{Head, ReadLogError};
use crate::wire::{DecodeError, ROLLOUT_KIND, decode_event, encode_event};

/// Begins what is hashed, so that no hash of another format is ever taken for one of these.
const HASH_DOMAIN: &[u8] = b"kiln.log/1\0";

/// Controllers act under this name, which no login has, because of the colon.
const CONTROLLER: &str = "kiln:controller";

/// Marks that a login comes after it, so that none can pass for the controller.
const USER_PREFIX: &str = "user:";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) position: u64,
    at: u64,
    term: u64,
    actor: String,
    stack: Option<String>,
    env: Option<String>,
    kind: String,
    schema: u32,
    body: String,
    prev_hash: Digest,
    pub(super) hash: Digest,
}

/// Encodes and chains entries that follow `head`, or says what is wrong with them.
pub(super) fn chain(head: Head, entries: &[Entry]) -> Result<Vec<Row>, String> {
    let mut rows = Vec::with_capacity(entries.len());
    let (mut position, mut prev_hash, mut at) = (head.position.0, head.hash, 0);
    for entry in entries {
        position += 1;
        if entry.position.0 != position {
            return Err(format!("an entry for {} where {} is next", entry.position, Position(position)));
        }
        if entry.at.0 < at {
            return Err(format!("the entry for {} is older than the one before it", entry.position));
        }
        at = entry.at.0;
        if [position, at, entry.term.0].into_iter().any(|number| i64::try_from(number).is_err()) {
            return Err(format!("the entry for {} has a number that SQLite can't hold", entry.position));
        }
        let row = Row::encode(entry, prev_hash);
        prev_hash = row.hash;
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn encode(entry: &Entry, prev_hash: Digest) -> Self {
        let (kind, schema, body) = encode_event(&entry.event);
        let mut row = Self {
            position: entry.position.0,
            at: entry.at.0,
            term: entry.term.0,
            actor: match &entry.actor {
                Actor::User(name) => format!("{USER_PREFIX}{name}"),
                Actor::Controller => CONTROLLER.into(),
            },
            stack: entry.env.as_ref().map(|env| env.stack.to_string()),
            env: entry.env.as_ref().map(|env| env.env.to_string()),
            kind: kind.into(),
            schema,
            body: String::from_utf8(body).expect("JSON is UTF-8"),
            prev_hash,
            hash: prev_hash,
        };
        row.hash = row.compute_hash();
        row
    }

    pub(super) fn decode(&self) -> Result<Entry, ReadLogError> {
        let event =
            decode_event(&self.kind, self.schema, self.body.as_bytes()).map_err(|error| match error {
                DecodeError::Unknown => ReadLogError::Unknown {
                    position: Position(self.position),
                    kind: self.kind.clone(),
                    schema: self.schema,
                },
                DecodeError::Malformed(reason) => self.damaged(reason),
            })?;
        let actor = match self.actor.strip_prefix(USER_PREFIX) {
            Some(name) => Actor::User(name.into()),
            None if self.actor == CONTROLLER => Actor::Controller,
            None => return Err(self.damaged(format!("`{}` is no actor", self.actor))),
        };
        Ok(Entry {
            position: Position(self.position),
            at: Timestamp(self.at),
            term: Term(self.term),
            actor,
            env: self.env_key()?,
            event,
        })
    }

    fn env_key(&self) -> Result<Option<EnvKey>, ReadLogError> {
        match (&self.stack, &self.env) {
            (None, None) => Ok(None),
            (Some(stack), Some(env)) => {
                let stack =
                    StackName::new(stack.as_str()).map_err(|error| self.damaged(error.to_string()))?;
                let env = EnvName::new(env.as_str()).map_err(|error| self.damaged(error.to_string()))?;
                Ok(Some(EnvKey { stack, env }))
            }
            _ => Err(self.damaged("it names a stack without an environment".into())),
        }
    }

    fn compute_hash(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(HASH_DOMAIN);
        hash.update(self.prev_hash.as_bytes());
        for number in [self.position, self.at, self.term, u64::from(self.schema)] {
            hash.update(number.to_le_bytes());
        }
        // Each text goes in with its length, and an absent one differs from an empty one: no two lines hash alike.
        for text in
            [Some(&self.actor), self.stack.as_ref(), self.env.as_ref(), Some(&self.kind), Some(&self.body)]
        {
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(text.map_or(&b""[..], |text| text.as_bytes()));
        }
        Digest::new(hash.finalize().into())
    }

    /// Verifies that the line is what was hashed; says nothing about the lines before it.
    pub(super) fn verify_self(&self) -> Result<(), ReadLogError> {
        match self.compute_hash() == self.hash {
            true => Ok(()),
            false => Err(self.damaged("the entry was edited: it does not match its hash".into())),
        }
    }

    fn damaged(&self, reason: String) -> ReadLogError {
        ReadLogError::Damaged { position: Position(self.position), reason }
    }
}

pub(super) fn insert(database: &Connection, rows: &[Row]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let mut statement = database.prepare_cached(sql)?;
    for row in rows {
        statement.execute(params![
            row.position as i64,
            row.at as i64,
            row.term as i64,
            row.actor,
            row.stack,
            row.env,
            row.kind,
            row.schema,
            row.body,
            row.prev_hash.as_bytes(),
            row.hash.as_bytes(),
        ])?;
    }
    Ok(())
}

pub(super) fn last_position(database: &Connection) -> rusqlite::Result<u64> {
    let last =
        database.query_row("SELECT max(position) FROM events", [], |row| row.get::<_, Option<i64>>(0))?;
    Ok(last.map_or(0, |position| position.max(0) as u64))
}

/// Returns the hash at a position; none where there is no such entry.
pub(super) fn hash_at(database: &Connection, position: u64) -> Result<Option<Digest>, ReadLogError> {
    let sql = "SELECT hash FROM events WHERE position = ?1";
    let found = database.prepare_cached(sql).and_then(|mut statement| {
        statement.query_row([position as i64], |row| row.get::<_, [u8; 32]>(0)).optional()
    });
    found.map(|hash| hash.map(Digest::new)).map_err(|error| read_error(position, error))
}

pub(super) fn page(database: &Connection, after: u64, rows: u64) -> Result<Vec<Row>, ReadLogError> {
    let sql = "SELECT * FROM events WHERE position > ?1 ORDER BY position LIMIT ?2";
    select(database, after, sql, params![after as i64, rows as i64])
}

pub(super) fn page_of_env(
    database: &Connection,
    env: &EnvKey,
    after: u64,
    rows: u64,
) -> Result<Vec<Row>, ReadLogError> {
    let sql =
        "SELECT * FROM events WHERE stack = ?3 AND env = ?4 AND position > ?1 ORDER BY position LIMIT ?2";
    let (stack, env) = (env.stack.as_str(), env.env.as_str());
    select(database, after, sql, params![after as i64, rows as i64, stack, env])
}

/// The rollout events of an environment after a position, in order.
pub(super) fn page_of_rollouts(
    database: &Connection,
    env: &EnvKey,
    after: u64,
    rows: u64,
) -> Result<Vec<Row>, ReadLogError> {
    let sql = "SELECT * FROM events WHERE stack = ?3 AND env = ?4 AND kind = ?5 AND position > ?1 \
               ORDER BY position LIMIT ?2";
    let (stack, env) = (env.stack.as_str(), env.env.as_str());
    select(database, after, sql, params![after as i64, rows as i64, stack, env, ROLLOUT_KIND])
}

/// The rollout events of an environment before a position, the last first.
pub(super) fn page_of_rollouts_before(
    database: &Connection,
    env: &EnvKey,
    before: u64,
    rows: u64,
) -> Result<Vec<Row>, ReadLogError> {
    let sql = "SELECT * FROM events WHERE stack = ?3 AND env = ?4 AND kind = ?5 AND position < ?1 \
               ORDER BY position DESC LIMIT ?2";
    let (stack, env) = (env.stack.as_str(), env.env.as_str());
    let before = i64::try_from(before).unwrap_or(i64::MAX);
    select(database, before.max(1) as u64 - 1, sql, params![before, rows as i64, stack, env, ROLLOUT_KIND])
}

fn select(
    database: &Connection,
    after: u64,
    sql: &str,
    parameters: &[&dyn rusqlite::ToSql],
) -> Result<Vec<Row>, ReadLogError> {
    let failed = |error| read_error(after + 1, error);
    let mut statement = database.prepare_cached(sql).map_err(failed)?;
    let rows = statement.query_map(parameters, |row| {
        Ok(Row {
            position: number(row, "position")?,
            at: number(row, "at")?,
            term: number(row, "term")?,
            actor: row.get("actor")?,
            stack: row.get("stack")?,
            env: row.get("env")?,
            kind: row.get("kind")?,
            schema: row.get("schema")?,
            body: row.get("body")?,
            prev_hash: Digest::new(row.get("prev_hash")?),
            hash: Digest::new(row.get("hash")?),
        })
    });
    rows.map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}

fn number(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn read_error(position: u64, error: rusqlite::Error) -> ReadLogError {
    if is_damage(&error) {
        return ReadLogError::Damaged { position: Position(position), reason: error.to_string() };
    }
    ReadLogError::Io(io_error(error))
}

/// Rows in order, fetched page by page; ends after the first error.
pub(super) struct Pages<F> {
    fetch: F,
    after: u64,
    page: std::vec::IntoIter<Row>,
    done: bool,
}

impl<F: FnMut(u64) -> Result<Vec<Row>, ReadLogError>> Pages<F> {
    pub(super) fn new(after: u64, fetch: F) -> Self {
        Self { fetch, after, page: Vec::new().into_iter(), done: false }
    }
}

impl<F: FnMut(u64) -> Result<Vec<Row>, ReadLogError>> Iterator for Pages<F> {
    type Item = Result<Row, ReadLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.len() == 0 && !self.done {
            match (self.fetch)(self.after) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            }
        }
        let row = self.page.next();
        match &row {
            Some(row) => self.after = row.position,
            None => self.done = true,
        }
        row.map(Ok)
    }
}

/// Rows whose chain is verified on the way; ends after the first that does not hold.
pub(super) struct Chained<I> {
    rows: I,
    position: u64,
    /// The hash before the next row; none where there is no such entry.
    prev_hash: Result<Option<Digest>, ReadLogError>,
    done: bool,
}

impl<I: Iterator<Item = Result<Row, ReadLogError>>> Chained<I> {
    pub(super) fn new(rows: I, after: u64, prev_hash: Result<Option<Digest>, ReadLogError>) -> Self {
        Self { rows, position: after, prev_hash, done: false }
    }

    fn check(&mut self, row: &Row) -> Result<(), ReadLogError> {
        let missing = |position| ReadLogError::Damaged {
            position: Position(position),
            reason: format!("the entry is missing, though there is one at {}", Position(row.position)),
        };
        let prev_hash = std::mem::replace(&mut self.prev_hash, Ok(None))?;
        let prev_hash = prev_hash.ok_or_else(|| missing(self.position))?;
        let next = self.position + 1;
        if row.position != next {
            return Err(missing(next));
        }
        row.verify_self()?;
        if row.prev_hash != prev_hash {
            return Err(row.damaged("the entry does not follow the one before it".into()));
        }
        self.position = next;
        self.prev_hash = Ok(Some(row.hash));
        Ok(())
    }
}

impl<I: Iterator<Item = Result<Row, ReadLogError>>> Iterator for Chained<I> {
    type Item = Result<Row, ReadLogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.rows.next()?.and_then(|row| {
            self.check(&row)?;
            Ok(row)
        });
        self.done = row.is_err();
        Some(row)
    }
}
