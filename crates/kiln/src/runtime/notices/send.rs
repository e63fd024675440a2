//! One attempt: a signed request, and whether its receiver took it.
//!
//! Signed as Standard Webhooks 1.0 says (standardwebhooks.com): HMAC-SHA256 of `ID.TIMESTAMP.BODY`, in base64.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_model::Timestamp;
use kiln_store::Sealed;
use ring::hmac;

use super::letter::Letter;
use crate::runtime::outward::{agent, brief};

/// How long one attempt may take: receivers are to answer at once and work later.
const WITHIN: Duration = Duration::from_secs(10);
/// What a secret begins with that is in base64.
const ENCODED: &str = "whsec_";
/// Who is told no more may say so with this answer.
const GONE: u16 = 410;

/// Why a letter was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotTaken {
    /// For people.
    pub(super) reason: String,
    /// Whether another attempt would end the same way.
    pub(super) is_final: bool,
}

/// Sends letters: one for the process, so that connections are kept.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    agent: ureq::Agent,
    state: PathBuf,
}

impl Sender {
    /// A sender that reads the secrets of this state folder.
    pub(super) fn new(state: PathBuf) -> Self {
        // Who it was signed for was named in the stack, and nobody else.
        Self { agent: agent(WITHIN, 0, None), state }
    }

    /// Sends a letter, signed as of now.
    ///
    /// # Errors
    /// See [`NotTaken`].
    pub(super) fn send(&self, letter: &Letter, now: Timestamp) -> Result<(), NotTaken> {
        let fails = |reason: String| NotTaken { reason: brief(&reason), is_final: false };
        let (name, version) = (&letter.to.secret.name, &letter.to.secret.version);
        let sealed = Sealed::open(&self.state).map_err(|error| fails(error.to_string()))?;
        let secret = sealed.reveal(&letter.env.stack, name, version);
        let secret = secret.map_err(|error| fails(format!("its secret can't be read: {error}")))?;
        let key = key(secret.expose()).ok_or_else(|| NotTaken {
            reason: format!("secret {name} begins with `{ENCODED}`, and the rest is no base64"),
            is_final: true,
        })?;
        let seconds = now.0 / 1000;
        let request = self
            .agent
            .post(&letter.to.url)
            .header("content-type", "application/json")
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signature(&key, &letter.id, seconds, &letter.body));
        let answer = request.send(letter.body.as_bytes()).map_err(|error| fails(error.to_string()))?;
        // What it says beside its status is nobody's business.
        match answer.status().as_u16() {
            200..300 => Ok(()),
            status => Err(NotTaken { reason: format!("it answered {status}"), is_final: status == GONE }),
        }
    }
}

/// The bytes that sign: those of a secret as it is, or those that it has in base64.
fn key(secret: &[u8]) -> Option<hmac::Key> {
    let bytes = match secret.strip_prefix(ENCODED.as_bytes()) {
        Some(encoded) => STANDARD.decode(encoded).ok()?,
        None => secret.to_vec(),
    };
    Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

fn signature(key: &hmac::Key, id: &str, seconds: u64, body: &str) -> String {
    let signed = hmac::sign(key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(signed.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementations of Standard Webhooks (Svix), in all languages.
    #[test]
    fn a_signature_is_that_of_the_specification() {
        let key = key(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_taken_as_it_is_unless_it_says_that_it_is_encoded() {
        let sign = |secret: &[u8]| key(secret).map(|key| signature(&key, "a", 1, "b"));
        assert_eq!(sign(b"whsec_cGxhaW4="), sign(b"plain"));
        assert_ne!(sign(b"plain"), sign(b"plain "));
        assert_eq!(sign(b"whsec_cGx!"), None);
    }
}
