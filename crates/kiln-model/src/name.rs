//! Names that a user chose, checked once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Names become DNS labels, cgroup names and file names, so they stay well under 63 bytes with a suffix.
pub const NAME_BYTES_MAX: usize = 40;

/// A name breaks the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    /// What was being named, such as `service`.
    pub kind: &'static str,
    /// The offending text, shortened to 80 characters.
    pub text: String,
    /// The rule that it breaks.
    pub rule: &'static str,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a valid {} name: {}", self.text, self.kind, self.rule)
    }
}

impl std::error::Error for NameError {}

/// What a name may be made of.
#[derive(Clone, Copy)]
enum Alphabet {
    /// It is part of a host name: lower-case letters, digits and inner hyphens (RFC 1123).
    DnsLabel,
    /// It is only ever an identifier: letters, digits, `_` and `-`, starting with a letter or `_`.
    Identifier,
}

impl Alphabet {
    const fn rule(self) -> &'static str {
        match self {
            Self::DnsLabel => {
                "use 1 to 40 lower-case letters, digits and hyphens, beginning and ending with a letter or digit"
            }
            Self::Identifier => "use 1 to 40 letters, digits, `_` and `-`, beginning with a letter or `_`",
        }
    }

    fn accepts(self, text: &str) -> bool {
        let bytes = text.as_bytes();
        let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
        if bytes.len() > NAME_BYTES_MAX {
            return false;
        }
        match self {
            Self::DnsLabel => {
                let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
                bytes.iter().all(inner) && *first != b'-' && *last != b'-'
            }
            Self::Identifier => {
                let inner = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b == b'-';
                bytes.iter().all(inner) && (first.is_ascii_alphabetic() || *first == b'_')
            }
        }
    }
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident: $alphabet:ident, $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // Every entry of the log names its environment, and a state as many as it has instances: a copy counts, no more.
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if Alphabet::$alphabet.accepts(&text) {
                    return Ok(Self(text.into()));
                }
                let text = text.chars().take(80).collect();
                Err(NameError { kind: $kind, text, rule: Alphabet::$alphabet.rule() })
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    )*};
}

names! {
    /// The declared whole.
    StackName: DnsLabel, "stack";
    /// A named place where a stack runs, such as `dev` or `prod`.
    EnvName: DnsLabel, "environment";
    /// One workload of a stack; part of `http://SERVICE.STACK.kiln`.
    ServiceName: DnsLabel, "service";
    /// A recipe's name within its stack.
    ImageName: Identifier, "image";
    /// A golden base image's name within its stack.
    BaseName: Identifier, "base";
    /// A named port of a service.
    PortName: Identifier, "port";
    /// A way in from outside.
    RouteName: Identifier, "route";
    /// A declared volume.
    VolumeName: Identifier, "volume";
    /// A declared secret; its value never appears beside it.
    SecretName: Identifier, "secret";
    /// A declared block of config keys.
    ConfigName: Identifier, "config";
    /// A declared variable.
    VariableName: Identifier, "variable";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_a_dns_label() {
        for good in ["web", "a", "web-2", "0x"] {
            assert!(ServiceName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Web", "-a", "a-", "a_b", "a.b", "../x", "ä", &"a".repeat(41)] {
            assert!(ServiceName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_name_may_hold_an_underscore_but_no_slash() {
        assert!(SecretName::new("db_password").is_ok());
        assert!(SecretName::new("db/password").is_err());
        assert!(SecretName::new("1db").is_err());
    }
}
