//! Identities: who, where, which copy, and in what order.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::name::{EnvName, NameError, ServiceName, StackName};

/// A stack in an environment: the key of everything that runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvKey {
    /// The stack.
    pub stack: StackName,
    /// The environment.
    pub env: EnvName,
}

impl fmt::Display for EnvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stack, self.env)
    }
}

/// A stable place of a service, filled by one instance per revision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotKey {
    /// Where the service runs.
    pub env: EnvKey,
    /// The service.
    pub service: ServiceName,
    /// The place among its replicas, from 0.
    pub ordinal: u32,
}

impl fmt::Display for SlotKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.env, self.service, self.ordinal)
    }
}

/// Instance ids name links (15 bytes with a 4-byte prefix), cgroups and folders.
pub const INSTANCE_ID_BYTES: usize = 10;

/// A one-shot copy: the idempotency key of its creation, never used again.
///
/// Ten characters of `[a-z2-7]` (50 bits): short enough for a link's name, long enough that a seeded
/// generator does not repeat one in the life of a log; the core checks all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstanceId([u8; INSTANCE_ID_BYTES]);

// The order of the bytes, in two comparisons: large environments look up little else.
impl Ord for InstanceId {
    fn cmp(&self, other: &Self) -> Ordering {
        let words = |[a, b, c, d, e, f, g, h, rest @ ..]: [u8; INSTANCE_ID_BYTES]| {
            (u64::from_be_bytes([a, b, c, d, e, f, g, h]), u16::from_be_bytes(rest))
        };
        words(self.0).cmp(&words(other.0))
    }
}

impl PartialOrd for InstanceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl InstanceId {
    /// Derives an id from 50 bits of a seed.
    pub fn from_seed(seed: u64) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        Self(std::array::from_fn(|i| ALPHABET[(seed >> (5 * i) & 31) as usize]))
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("ids are ASCII: checked in every constructor")
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for InstanceId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let valid = |b: &u8| b.is_ascii_lowercase() || (b'2'..=b'7').contains(b);
        match <[u8; INSTANCE_ID_BYTES]>::try_from(text.as_bytes()) {
            Ok(bytes) if bytes.iter().all(valid) => Ok(Self(bytes)),
            _ => Err(NameError {
                kind: "instance",
                text: text.chars().take(80).collect(),
                rule: "an id is ten characters of a-z and 2-7",
            }),
        }
    }
}

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    )*};
}

numbers! {
    /// A place in the log, from 1; 0 is before the first entry.
    Position, "@";
    /// One life of a controller; every start takes a higher one.
    Term, "t";
    /// The number of a revision in its environment, from 1.
    RevisionNumber, "#";
    /// The log position at which a rollout was started.
    RolloutId, "rollout-";
    /// The log position at which a check was requested.
    CheckId, "check-";
}

/// What makes a late action harmless: compared by term, then by the position of the intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fence {
    /// The controller's term when it issued the action.
    pub term: Term,
    /// The log position of the intent.
    pub position: Position,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.term, self.position)
    }
}

/// Who asked: a person's login, or the part of Kiln that acted by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Actor {
    /// A person or a program, by the name that the command line took from its login.
    User(String),
    /// Kiln's controller.
    Controller,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => f.write_str(name),
            Self::Controller => f.write_str("kiln"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_id_reads_back_what_it_prints() {
        let id = InstanceId::from_seed(0x1234_5678_9abc);
        assert_eq!(id.as_str().parse(), Ok(id));
        assert!("short".parse::<InstanceId>().is_err());
        assert!("../../etc/".parse::<InstanceId>().is_err());
    }

    #[test]
    fn a_newer_term_outranks_any_older_position() {
        let old = Fence { term: Term(1), position: Position(99) };
        let new = Fence { term: Term(2), position: Position(3) };
        assert!(new > old);
    }
}
