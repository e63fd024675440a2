//! Which headers pass, in both directions (RFC 9110 §7.6), and which the edge adds.
//!
//! A client's `X-Forwarded-*`, `X-Real-IP` and `Forwarded` can't be believed on a public listener: they are replaced and
//! removed. On an internal listener the caller is an instance, whose word is kept and added to. `Via` is not added: it makes
//! several servers stop compressing, and tells an attacker more than an operator.

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Read as `HTTP_PROXY` by CGI programs (CVE-2016-5385).
const PROXY: HeaderName = HeaderName::from_static("proxy");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Says that an answer was made by the edge, and why. Never passed on from a backend.
pub(crate) const X_KILN_ERROR: HeaderName = HeaderName::from_static("x-kiln-error");

/// Marks a copy of a request, so that an application can leave out what must not be done twice. Believed from instances only.
pub(crate) const KILN_MIRROR: HeaderName = HeaderName::from_static("kiln-mirror");

/// Marks a request that the edge made itself. Believed from instances only.
pub(crate) const KILN_SYNTHETIC: HeaderName = HeaderName::from_static("kiln-synthetic");

/// Whether a list header has a token.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
}

/// The protocol that a client asks to go on with. Not `h2c`: behind it requests could no longer be told apart.
pub(crate) fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let refused = has_token(headers, &UPGRADE, "h2c") || !has_token(headers, &CONNECTION, "upgrade");
    (!refused).then(|| protocol.clone())
}

/// Whether the client waits for leave to send its body; an error if it expects something else.
pub(crate) fn expects_continue(headers: &HeaderMap) -> Result<bool, ()> {
    match headers.get(EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(()),
    }
}

/// Removes what is meant for one connection only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        strip_named_by_connection(headers);
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

fn strip_named_by_connection(headers: &mut HeaderMap) {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            let usual = [b"keep-alive".as_slice(), b"close", b"upgrade"];
            if usual.iter().all(|word| !token.eq_ignore_ascii_case(word)) {
                named.extend(HeaderName::from_bytes(token));
            }
        }
    }
    for name in named {
        // These decide where a message goes and where it ends: no client may have them removed.
        if name != HOST && name != CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// What the edge tells a backend about the client.
pub(crate) struct Caller<'a> {
    /// The address of the peer, as text.
    pub(crate) address: &'a HeaderValue,
    /// Whether the peer is an instance.
    pub(crate) trusted: bool,
    pub(crate) host: Option<&'a HeaderValue>,
}

/// Turns a client's headers into those for a backend.
pub(crate) fn forward_request(headers: &mut HeaderMap, caller: &Caller<'_>, upgrade: Option<&HeaderValue>) {
    let trailers = headers.contains_key(TE) && has_token(headers, &TE, "trailers");
    strip_hop_by_hop(headers);
    headers.remove(PROXY);
    headers.remove(HTTP2_SETTINGS);
    headers.remove(X_KILN_ERROR);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    } else if trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if caller.trusted {
        add_to_forwarded(headers, caller);
        return;
    }
    headers.remove(FORWARDED);
    headers.remove(KILN_MIRROR);
    headers.remove(KILN_SYNTHETIC);
    strip_forwarded(headers);
    headers.insert(X_FORWARDED_FOR, caller.address.clone());
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    if let Some(host) = caller.host {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

/// Removes all that applications take for a proxy's word about its client.
fn strip_forwarded(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_proxys_word(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
}

/// CGI and WSGI can't tell `_` from `-` (CVE-2015-0219), so neither is a way past the other.
fn is_proxys_word(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let begins_with = |word: &[u8]| {
        name.len() >= word.len()
            && name
                .iter()
                .zip(word)
                .all(|(byte, wanted)| byte == wanted || (*byte == b'_' && *wanted == b'-'))
    };
    begins_with(b"x-forwarded-") || (name.len() == b"x-real-ip".len() && begins_with(b"x-real-ip"))
}

fn add_to_forwarded(headers: &mut HeaderMap, caller: &Caller<'_>) {
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(place) => {
            place.insert(caller.address.clone());
        }
        Entry::Occupied(mut place) => {
            let parts: Vec<&[u8]> = place.iter().chain([caller.address]).map(HeaderValue::as_bytes).collect();
            if let Ok(joined) = HeaderValue::from_bytes(&parts.join(b", ".as_slice())) {
                place.insert(joined);
            }
        }
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Some(host) = caller.host {
        headers.entry(X_FORWARDED_HOST).or_insert_with(|| host.clone());
    }
}

/// Turns a backend's headers into those for a client.
pub(crate) fn forward_answer(headers: &mut HeaderMap) {
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body ended where its chunks did (RFC 9112 §6.3): this length would cut it, or have the client wait for more.
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    headers.remove(X_KILN_ERROR);
}

/// Turns a backend's agreement to another protocol into the edge's.
pub(crate) fn forward_switch(headers: &mut HeaderMap) {
    let protocol = headers.get(UPGRADE).cloned();
    forward_answer(headers);
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value))
        };
        lines.iter().map(pair).collect()
    }

    fn forwarded(lines: &[(&'static str, &'static str)], trusted: bool) -> Vec<(String, String)> {
        let mut headers = headers(lines);
        let address = HeaderValue::from_static("192.0.2.1");
        let host = HeaderValue::from_static("shop:80");
        let upgrade = wanted_upgrade(&headers);
        let caller = Caller { address: &address, trusted, host: Some(&host) };
        forward_request(&mut headers, &caller, upgrade.as_ref());
        let text = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let mut all: Vec<_> = headers.iter().map(text).collect();
        all.sort();
        all
    }

    fn lines(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
    }

    const ADDED: [(&str, &str); 3] =
        [("x-forwarded-for", "192.0.2.1"), ("x-forwarded-host", "shop:80"), ("x-forwarded-proto", "http")];

    #[test]
    fn what_is_meant_for_one_connection_is_removed() {
        let sent = [
            ("accept", "*/*"),
            ("connection", "close, X-Private, content-length, host"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "secret"),
            ("proxy-connection", "keep-alive"),
            ("proxy", "http://evil"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("x-kiln-error", "forged"),
            ("kiln-mirror", "1"),
        ];
        let kept = [&[("accept", "*/*"), ("content-length", "3")], ADDED.as_slice()].concat();
        assert_eq!(forwarded(&sent, false), lines(&kept));
    }

    #[test]
    fn a_client_from_outside_is_not_believed_and_an_instance_is() {
        let sent = [
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-host", "bank"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(forwarded(&sent, false), lines(&ADDED));
        let other_words = [
            ("x_forwarded_for", "10.0.0.1"),
            ("x-forwarded_proto", "https"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/bank"),
            ("x-real-ip", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
        ];
        assert_eq!(forwarded(&other_words, false), lines(&ADDED));
        let expected = [
            ("forwarded", "for=10.0.0.1"),
            ("x-forwarded-for", "10.0.0.1, 192.0.2.1"),
            ("x-forwarded-host", "bank"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(forwarded(&sent, true), lines(&expected));
        assert_eq!(forwarded(&[], true), lines(&ADDED));
        let marked = forwarded(&[("kiln-mirror", "1")], true);
        assert_eq!(
            marked[0],
            ("kiln-mirror".to_owned(), "1".to_owned()),
            "what a copy leads to is part of it"
        );
        assert_eq!(forwarded(&[("x-real-ip-of", "kept")], false)[3].0, "x-real-ip-of");
    }

    #[test]
    fn an_upgrade_needs_both_headers_and_is_not_to_clear_text_http_2() {
        let wanted = |lines: &[(&'static str, &'static str)]| wanted_upgrade(&headers(lines)).is_some();
        assert!(wanted(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!wanted(&[("upgrade", "websocket")]));
        assert!(!wanted(&[("connection", "upgrade")]));
        assert!(!wanted(&[("connection", "upgrade"), ("upgrade", "H2C")]));
        let sent = forwarded(&[("connection", "upgrade"), ("upgrade", "websocket")], false);
        assert!(sent.contains(&("upgrade".to_owned(), "websocket".to_owned())));
        assert!(sent.contains(&("connection".to_owned(), "upgrade".to_owned())));
    }

    #[test]
    fn a_client_that_takes_trailers_says_so_to_the_backend() {
        let sent = forwarded(&[("te", "gzip, trailers")], false);
        assert!(sent.contains(&("te".to_owned(), "trailers".to_owned())));
    }

    #[test]
    fn a_backend_can_not_pass_its_answer_for_the_edges() {
        let mut answer = headers(&[("x-kiln-error", "x"), ("keep-alive", "timeout=5"), ("server", "y")]);
        forward_answer(&mut answer);
        assert_eq!(answer, headers(&[("server", "y")]));
    }
}
