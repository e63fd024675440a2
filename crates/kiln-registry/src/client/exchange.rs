//! One request and its answer: redirects, challenges, and another attempt where that may help.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::PoisonError;
use std::time::Duration;

use ureq::http::{Request, Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig};
use ureq::{Body, SendBody};

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::{
    ANSWER_BYTES_MAX, ATTEMPTS_MAX, CONNECT_WITHIN, Client, ClientError, Purpose, REDIRECTS_MAX,
    RETRY_AFTER_MAX, RETRY_PAUSE,
};
use crate::base64;
use crate::query::encode;

/// Where Debian, and most of the others, keep the authorities that are trusted.
const CERTIFICATES_PATH: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What is sent; it can be sent again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// A part of a file.
    File {
        file: &'a File,
        from: u64,
        size: u64,
    },
}

impl Payload<'_> {
    const fn size(&self) -> u64 {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File { size, .. } => *size,
        }
    }
}

/// A request.
#[derive(Debug, Clone)]
pub(super) struct Outgoing<'a> {
    pub(super) method: &'static str,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(method: &'static str, url: String) -> Self {
        Self { method, url, headers: Vec::new(), payload: Payload::None }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }
}

/// Reads a part of a file without moving its position.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Prepares what opens connections.
pub(super) fn agent(authorities: &[std::path::PathBuf], stall: Duration) -> Result<ureq::Agent, ClientError> {
    let read = |path: &std::path::Path| -> Vec<_> {
        let pem = std::fs::read(path).unwrap_or_default();
        let items = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        items.collect()
    };
    let system =
        std::env::var_os("SSL_CERT_FILE").map_or_else(|| CERTIFICATES_PATH.into(), std::path::PathBuf::from);
    let mut roots = read(&system);
    for path in authorities {
        let more = read(path);
        if more.is_empty() {
            return Err(ClientError::Authority { path: path.clone() });
        }
        roots.extend(more);
    }
    let mut tls = TlsConfig::builder();
    if !roots.is_empty() {
        tls = tls.root_certs(RootCerts::from(roots));
    }
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .accept_encoding("identity")
        .http_status_as_error(false)
        // Followed here, where it is known what may go along.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_connect(Some(CONNECT_WITHIN))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .build();
    Ok(config.new_agent())
}

impl Client {
    /// Sends a request until it is answered by other than a redirect, a challenge or a failure that may pass.
    pub(super) fn send(&self, request: &Outgoing<'_>) -> Result<Response<Body>, ClientError> {
        let mut pause = RETRY_PAUSE;
        for attempt in 1.. {
            let wait = match self.authorized(request) {
                Ok(answer) if !may_pass(answer.status()) || attempt == ATTEMPTS_MAX => return Ok(answer),
                Ok(answer) => retry_after(&answer).unwrap_or(pause),
                Err(ClientError::Unreachable { .. }) if attempt < ATTEMPTS_MAX => pause,
                Err(error) => return Err(error),
            };
            std::thread::sleep(wait);
            pause *= 2;
        }
        unreachable!("the last attempt returns")
    }

    /// Sends a request once, and once more if the registry wants to know who asks.
    pub(super) fn authorized(&self, request: &Outgoing<'_>) -> Result<Response<Body>, ClientError> {
        let answer = self.redirected(request)?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let headers = answer.headers().get_all("www-authenticate").iter();
        let challenges: Vec<_> = headers.filter_map(|value| Challenge::parse(value.to_str().ok()?)).collect();
        // A token is asked for little; a password opens everything.
        let bearer = challenges.iter().find(|it| matches!(it, Challenge::Bearer { .. }));
        let Some(authorization) = (match bearer.or(challenges.first()) {
            Some(Challenge::Bearer { realm, service, scope }) => {
                Some(self.token(realm, service.as_deref(), scope.as_deref())?)
            }
            Some(Challenge::Basic) => self.basic(),
            None => None,
        }) else {
            return Ok(answer);
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization);
        self.redirected(request)
    }

    fn basic(&self) -> Option<String> {
        match &self.credentials {
            Some(Credentials::Basic { user, password }) => {
                Some(format!("Basic {}", base64::encode(format!("{user}:{password}").as_bytes())))
            }
            _ => None,
        }
    }

    /// Follows redirects. Credentials go to the registry's own origin only.
    fn redirected(&self, request: &Outgoing<'_>) -> Result<Response<Body>, ClientError> {
        let mut url = request.url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.check_encrypted(&url)?;
            let mut headers = request.headers.clone();
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(value) = authorization.filter(|_| origin_of(&url) == Some(self.origin.as_str())) {
                headers.push(("authorization", value));
            }
            let answer = self.once(request, &url, &headers)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = header(&answer, "location").and_then(|to| resolve(&url, to));
            url = next.ok_or_else(|| self.not_a_registry("it redirects to nowhere"))?;
        }
        Err(self.not_a_registry(format!("it redirects more than {REDIRECTS_MAX} times")))
    }

    fn once(
        &self,
        request: &Outgoing<'_>,
        url: &str,
        headers: &[(&'static str, String)],
    ) -> Result<Response<Body>, ClientError> {
        let mut builder = Request::builder().method(request.method).uri(url);
        for (name, value) in headers {
            builder = builder.header(*name, value);
        }
        let is_bare = matches!(request.method, "GET" | "HEAD" | "DELETE");
        if is_bare {
            return self.run(url, builder.body(SendBody::none()));
        }
        builder = builder.header("content-length", request.payload.size().to_string());
        match request.payload {
            Payload::None => self.run(url, builder.body(SendBody::from_reader(&mut io::empty()))),
            Payload::Bytes(mut bytes) => self.run(url, builder.body(SendBody::from_reader(&mut bytes))),
            Payload::File { file, from, size } => {
                let mut part = Part { file, at: from, end: from + size };
                self.run(url, builder.body(SendBody::from_reader(&mut part)))
            }
        }
    }

    fn run(
        &self,
        url: &str,
        request: Result<Request<SendBody<'_>>, ureq::http::Error>,
    ) -> Result<Response<Body>, ClientError> {
        let no_address = || self.not_a_registry(format!("`{}` is not an address", url.escape_debug()));
        let request = request.map_err(|_| no_address())?;
        self.agent.run(request).map_err(|error| match error {
            ureq::Error::BadUri(_) => no_address(),
            error => ClientError::Unreachable { host: self.host(), source: Box::new(error) },
        })
    }

    /// Asks the place of tokens for one: Docker's "Token Authentication Specification", and its OAuth 2 variant.
    fn token(&self, realm: &str, service: Option<&str>, scope: Option<&str>) -> Result<String, ClientError> {
        self.check_encrypted(realm)?;
        let actions = if self.purpose == Purpose::Push { "pull,push" } else { "pull" };
        let wanted = format!("repository:{}:{actions}", self.reference.repository);
        let mut query = format!("scope={}", encode(scope.unwrap_or(&wanted)));
        if let Some(service) = service {
            query += &format!("&service={}", encode(service));
        }
        let form;
        let request = match &self.credentials {
            Some(Credentials::Identity(token)) => {
                form = format!(
                    "{query}&grant_type=refresh_token&client_id=kiln&refresh_token={}",
                    encode(token)
                );
                Outgoing::new("POST", realm.to_owned())
                    .header("content-type", "application/x-www-form-urlencoded")
                    .payload(Payload::Bytes(form.as_bytes()))
            }
            _ => {
                let joint = if realm.contains('?') { '&' } else { '?' };
                let request = Outgoing::new("GET", format!("{realm}{joint}{query}"));
                self.basic()
                    .into_iter()
                    .fold(request, |request, value| request.header("authorization", value))
            }
        };
        // A redirect is not followed: the password would go along.
        let mut answer = self.once(&request, &request.url, &request.headers)?;
        if !answer.status().is_success() {
            let reason = format!("no token for {}: {}", self.reference.repository, said(&mut answer));
            return Err(ClientError::Denied { host: self.host(), reason });
        }
        #[derive(serde::Deserialize)]
        struct TokenWire {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut bytes = Vec::new();
        let read = answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(|source| ClientError::Unreachable { host: self.host(), source: source.into() })?;
        let wire: Option<TokenWire> = serde_json::from_slice(&bytes).ok();
        let token = wire.and_then(|wire| wire.token.or(wire.access_token));
        let is_plain =
            |token: &String| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        let token =
            token.filter(is_plain).ok_or_else(|| self.not_a_registry("its place of tokens gives none"))?;
        Ok(format!("Bearer {token}"))
    }

    pub(super) fn not_a_registry(&self, reason: impl Into<String>) -> ClientError {
        ClientError::NotARegistry { host: self.host(), reason: reason.into() }
    }

    fn check_encrypted(&self, url: &str) -> Result<(), ClientError> {
        if url.starts_with("https://") || (self.insecure && url.starts_with("http://")) {
            return Ok(());
        }
        Err(ClientError::Unencrypted { url: url.chars().take(300).collect() })
    }

    /// Turns an answer that is not the wanted one into an error.
    pub(super) fn failure(&self, mut answer: Response<Body>, what: &str) -> ClientError {
        let status = answer.status();
        let kind = header(&answer, "content-type").unwrap_or_default().to_owned();
        let host = self.host();
        // A page for people, of a proxy that wants a login or of a site that is no registry.
        if kind.starts_with("text/html") && status != StatusCode::UNAUTHORIZED {
            return self.not_a_registry(format!("with a web page, and {status}"));
        }
        let reason = said(&mut answer);
        match status.as_u16() {
            401 | 403 => {
                let known = if self.credentials.is_some() {
                    ""
                } else {
                    "; Docker's credentials have no user for it"
                };
                ClientError::Denied { host, reason: format!("{reason}{known}") }
            }
            404 => ClientError::Missing { host, what: what.to_owned() },
            // The others do not pass by themselves: a full disk is 507.
            500.. if may_pass(status) => ClientError::Unreachable { host, source: reason.into() },
            _ => ClientError::Refused { host, reason },
        }
    }
}

/// What a registry says with an error: its codes and messages, or its status.
fn said(answer: &mut Response<Body>) -> String {
    let status = answer.status();
    let mut bytes = Vec::new();
    // What can't be read of it is not said.
    let _ = answer.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let first = &value["errors"][0];
    let text = match (first["code"].as_str(), first["message"].as_str()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => String::new(),
    };
    let text: String = text.chars().filter(|character| !character.is_control()).take(300).collect();
    if text.is_empty() { status.to_string() } else { format!("{text} ({})", status.as_u16()) }
}

/// Whether the same request may be answered otherwise in a moment.
fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = header(answer, "retry-after")?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

pub(super) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// Scheme, host and port.
fn origin_of(url: &str) -> Option<&str> {
    let host = url.find("://")? + 3;
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |end| host + end);
    Some(&url[..end])
}

/// Where a `Location` leads.
pub(super) fn resolve(from: &str, to: &str) -> Option<String> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_owned());
    }
    // `//host/path` leads to another host, too.
    let scheme = &from[..from.find("://")? + 1];
    match to {
        _ if to.starts_with("//") => Some(format!("{scheme}{to}")),
        _ if to.starts_with('/') => Some(format!("{}{to}", origin_of(from)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_leads_where_a_browser_would_go() {
        let from = "https://r.example.org:5000/v2/a";
        for (to, url) in [
            ("/v2/b?x=y", Some("https://r.example.org:5000/v2/b?x=y")),
            ("https://cdn.example.org/x", Some("https://cdn.example.org/x")),
            ("//cdn.example.org/x", Some("https://cdn.example.org/x")),
            ("ftp://x", None),
            ("relative", None),
        ] {
            assert_eq!(resolve(from, to).as_deref(), url);
        }
        assert_eq!(origin_of(from), Some("https://r.example.org:5000"));
        assert_eq!(origin_of("https://h?x"), Some("https://h"));
        // What only looks like it is another origin.
        assert_ne!(origin_of("https://r.example.org:5000@evil.example.org/"), origin_of(from));
    }
}
