//! What questions to others go with: who asks, and which certificates vouch for whoever is asked.

use std::sync::Arc;

use kiln_model::SecretName;
use kiln_model::access::{Access, Credentials};

use crate::diagnostic::Problem;
use crate::reader::Reader;

/// A header is longer nowhere.
const USER_CHARS_MAX: usize = 256;

/// Dozens of certificates; the list of a whole system is on the machine already.
const ROOTS_BYTES_MAX: usize = 64 << 10;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Reads `bearer`, `user` with `password`, and `ca`. What can't be true together is told; then there is none.
pub(super) fn access(block: Reader<'_>, url: Option<&str>) -> Option<Access> {
    let is_plain = url.is_some_and(|url| !url.starts_with("https://"));
    if block.has("ca") && is_plain {
        wrong(block, "ca", "nobody shows a certificate over plain HTTP", "ask an `https://` address");
        return None;
    }
    let roots = block.parsed("ca", "a certificate in PEM", certificates);
    Some(Access { credentials: credentials(block)?, roots })
}

fn credentials(block: Reader<'_>) -> Option<Option<Credentials>> {
    let secret = |name: &str| -> Option<SecretName> {
        block.reference(name, &["secret"], "secret.NAME")?.0.name.parse().ok()
    };
    match (block.has("bearer"), block.has("user"), block.has("password")) {
        (false, false, false) => Some(None),
        (true, false, false) => Some(Some(Credentials::Bearer(secret("bearer")?))),
        (false, true, true) => {
            let user = block.parsed("user", "\"kiln\"", |text| match text.chars().count() {
                0 => Err("nobody has no name".to_owned()),
                _ if text.contains(':') => Err("a user's name ends at the first `:`".to_owned()),
                _ if text.contains(char::is_control) => Err("it can't be in a header".to_owned()),
                1..=USER_CHARS_MAX => Ok(text.to_owned()),
                _ => Err(format!("it has more than {USER_CHARS_MAX} characters")),
            });
            let password = secret("password");
            Some(Some(Credentials::Basic { user: user?, password: password? }))
        }
        (true, _, _) => {
            let help = "leave out `bearer`, or `user` and `password`";
            wrong(block, "bearer", "one question goes with one kind of credentials", help);
            None
        }
        (false, has_user, _) => {
            let (there, missing) = if has_user { ("user", "password") } else { ("password", "user") };
            wrong(block, there, &format!("`{there}` goes with a `{missing}`"), "set both, or neither");
            None
        }
    }
}

/// Certificates as text. What is in them shows when somebody is asked: here only that there are some.
fn certificates(text: &str) -> Result<Arc<str>, String> {
    let (begins, ends) = (text.matches(BEGIN).count(), text.matches(END).count());
    match text.len() {
        _ if text.contains("PRIVATE KEY-----") => {
            Err("it has a private key, which is nobody else's".to_owned())
        }
        0..=ROOTS_BYTES_MAX if begins > 0 && begins == ends => Ok(text.into()),
        0..=ROOTS_BYTES_MAX => Err(format!("it has no certificate between `{BEGIN}` and `{END}`")),
        bytes => Err(format!("it has {bytes} bytes, and {ROOTS_BYTES_MAX} are the most")),
    }
}

fn wrong(block: Reader<'_>, name: &str, message: &str, help: &str) {
    block.report(Problem::new("wrong-value", block.span(name), message).help(help));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_those_of_others_and_whole() {
        let one = format!("{BEGIN}\nMIIB\n{END}\n");
        assert_eq!(certificates(&one).as_deref(), Ok(one.as_str()));
        assert!(certificates(&one.repeat(3)).is_ok());
        for wrong in [String::new(), "/etc/ca.pem".into(), BEGIN.into(), one.repeat(3000)] {
            assert!(certificates(&wrong).is_err());
        }
        let key = format!("{one}-----BEGIN EC PRIVATE KEY-----");
        assert!(certificates(&key).unwrap_err().contains("private key"));
    }
}
