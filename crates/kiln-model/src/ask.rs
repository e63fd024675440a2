//! A question over HTTP that decides whether a rollout goes on.

use std::fmt;

use crate::access::Access;
use crate::name::{PortName, ServiceName};
use crate::units::Millis;

/// A question over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The service whose rollout asks.
    pub service: ServiceName,
    /// Who is asked.
    pub whom: Whom,
    /// How.
    pub method: Method,
    /// The status that is asked for; none is any of 200 to 299.
    pub status: Option<u16>,
    /// What the answer's body must contain, if anything.
    pub contains: Option<String>,
    /// How long one attempt may take, all who are asked together.
    pub timeout: Millis,
    /// How often it is tried.
    pub again: Again,
    /// What it goes with.
    pub access: Access,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Whoever answers at this address.
    Url(String),
    /// Each healthy new instance of the service, past the edge: it may have no requests yet.
    Instances {
        /// The port.
        port: PortName,
        /// The path, with its query.
        path: String,
    },
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`, with an empty body.
    Post,
}

/// How often a check is tried before its rollout goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// So often; at least once.
    pub attempts: u32,
    /// So long after one failed.
    pub interval: Millis,
}

impl Default for Again {
    fn default() -> Self {
        Self { attempts: 1, interval: Millis(0) }
    }
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Get, Self::Head, Self::Post];

    /// As HTTP writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
        }
    }

    /// Reads it as HTTP writes it.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.word() == word)
    }
}

impl Ask {
    /// Whether a status is the one that is asked for.
    pub fn accepts(&self, status: u16) -> bool {
        self.status.map_or((200..300).contains(&status), |asked| asked == status)
    }
}

/// `http://api.example/ready`, or `/ready of each new web`.
impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.method != Method::Get {
            write!(f, "{} ", self.method.word())?;
        }
        match &self.whom {
            Whom::Url(url) => f.write_str(url),
            Whom::Instances { path, .. } => write!(f, "{path} of each new {}", self.service),
        }
    }
}
