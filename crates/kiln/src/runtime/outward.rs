//! Requests to others that the controller makes: who asks, whom it believes, and how failures are told.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_core::State;
use kiln_model::access::{Access, Credentials};
use kiln_model::{EnvKey, RevisionNumber, StackName};
use kiln_store::Sealed;
use ureq::config::RedirectAuthHeaders;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// What is said of a failure is shown in a line, and may be an entry of the log.
const REASON_CHARS_MAX: usize = 160;

/// Where Debian and its kin keep the certificates that the machine trusts.
const CERTIFICATES_PATH: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Those certificates, as they were when the controller started.
static TRUSTED: LazyLock<Vec<Certificate<'static>>> =
    LazyLock::new(|| certificates(&std::fs::read(CERTIFICATES_PATH).unwrap_or_default()));

fn certificates(pem: &[u8]) -> Vec<Certificate<'static>> {
    let of_item = |item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    };
    parse_pem(pem).filter_map(of_item).collect()
}

/// Whoever asks, with this time for each request, from the name's resolution to the last byte. What is answered with an error is
/// an answer. `roots` vouch for whoever is asked beside what the machine trusts; a machine without any trusts what Mozilla does.
pub(super) fn agent(within: Duration, redirects_max: u32, roots: Option<&str>) -> ureq::Agent {
    let more = roots.map(|roots| certificates(roots.as_bytes())).unwrap_or_default();
    let trusted: Vec<_> = TRUSTED.iter().cloned().chain(more).collect();
    let mut tls = TlsConfig::builder();
    if !trusted.is_empty() {
        tls = tls.root_certs(RootCerts::Specific(Arc::new(trusted)));
    }
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(within))
        .max_redirects(redirects_max)
        // Who asks is told to whom the stack names, and to nobody whom they send to.
        .redirect_auth_headers(RedirectAuthHeaders::SameHost)
        .http_status_as_error(false)
        // Whoever started Kiln may have had a proxy set for something else.
        .proxy(None)
        .build();
    ureq::Agent::new_with_config(config)
}

/// Returns the version of the secret that a question goes with, as a revision has it.
pub(super) fn version_of(
    state: &State,
    env: &EnvKey,
    revision: Option<RevisionNumber>,
    access: &Access,
) -> Option<String> {
    let revision = state.environment(env)?.revisions.get(&revision?)?;
    revision.spec.credentials.get(access.secret()?).cloned()
}

/// Returns what the header `Authorization` of a question says; none if nobody in particular asks.
///
/// # Errors
/// The secret can't be read, or can't be in a header: for people, without a byte of it.
pub(super) fn authorization(
    state: &Path,
    stack: &StackName,
    access: &Access,
    version: Option<&str>,
) -> Result<Option<String>, String> {
    let (Some(credentials), Some(secret)) = (&access.credentials, access.secret()) else { return Ok(None) };
    let unknown = || format!("secret {secret} was not captured");
    let sealed = Sealed::open(state).map_err(|error| error.to_string())?;
    let value = sealed.reveal(stack, secret, version.ok_or_else(unknown)?);
    let value = value.map_err(|error| format!("secret {secret} can't be read: {error}"))?;
    match credentials {
        Credentials::Bearer(_) => {
            let is_token = !value.expose().is_empty() && value.expose().iter().all(u8::is_ascii_graphic);
            let token = std::str::from_utf8(value.expose()).ok().filter(|_| is_token);
            let token =
                token.ok_or_else(|| format!("secret {secret} is no token: it can't be in a header"))?;
            Ok(Some(format!("Bearer {token}")))
        }
        Credentials::Basic { user, .. } => {
            let both = [user.as_bytes(), b":", value.expose()].concat();
            Ok(Some(format!("Basic {}", STANDARD.encode(both))))
        }
    }
}

/// In one line, without what a terminal would take for more than text.
pub(super) fn brief(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(REASON_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use kiln_model::SecretName;
    use kiln_store::sealed::SecretValue;

    use super::*;

    #[test]
    fn a_question_says_who_asks_and_never_what_can_not_be_in_a_header() {
        let folder = tempfile::tempdir().unwrap();
        let (stack, secret) = (StackName::new("shop").unwrap(), SecretName::new("token").unwrap());
        let sealed = Sealed::open(folder.path()).unwrap();
        let says = |credentials: Credentials, value: &str| {
            let version = sealed.capture(&stack, &secret, &SecretValue::new(value.into())).unwrap();
            let access = Access { credentials: Some(credentials), roots: None };
            authorization(folder.path(), &stack, &access, Some(&version))
        };
        let bearer = || Credentials::Bearer(secret.clone());
        let basic = Credentials::Basic { user: "Aladdin".into(), password: secret.clone() };
        // The examples of RFC 6750 and RFC 7617.
        assert_eq!(says(bearer(), "mF_9.B5f-4.1JqM"), Ok(Some("Bearer mF_9.B5f-4.1JqM".into())));
        assert_eq!(says(basic, "open sesame"), Ok(Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==".into())));
        for value in ["a\r\nHost: evil", "a b", "tökén"] {
            let reason = says(bearer(), value).unwrap_err();
            assert_eq!(reason, "secret token is no token: it can't be in a header");
        }
        let access = Access { credentials: Some(bearer()), roots: None };
        let none = authorization(folder.path(), &stack, &access, None);
        assert_eq!(none, Err("secret token was not captured".into()));
        let gone = authorization(folder.path(), &stack, &access, Some("0123"));
        assert!(gone.unwrap_err().starts_with("secret token can't be read"));
        assert_eq!(authorization(folder.path(), &stack, &Access::default(), None), Ok(None));
    }
}
