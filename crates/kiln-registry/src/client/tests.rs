//! Registries that break off, stall, lie, and lead elsewhere: each one a thread that answers in its own way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::digest::Algorithm;
use crate::manifest::{OCI_INDEX, OCI_MANIFEST, Target};
use crate::name::Reference;

/// A request as it came: its first line, its headers, and its body as far as it came.
#[derive(Debug, Clone)]
struct Seen {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// A server that answers each request with what `answer` says of it, and closes the connection. It ends with the test.
struct Fake {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    fn start(answer: impl Fn(usize, &Seen) -> Vec<u8> + Send + 'static) -> Self {
        Self::start_with(
            move |number, seen, stream| {
                let _ = stream.write_all(&answer(number, seen));
            },
            u64::MAX,
        )
    }

    /// Reads `body_max` bytes of a body at most.
    fn start_with(answer: impl Fn(usize, &Seen, &mut TcpStream) + Send + 'static, body_max: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noted = Arc::clone(&seen);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let request = read(&stream, body_max);
                noted.lock().unwrap().push(request.clone());
                answer(number, &request, &mut stream);
            }
        });
        Self { address, seen }
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.line.clone()).collect()
    }

    fn client(&self) -> Client {
        let reference = format!("{}/a/b:v1", self.address).parse().unwrap();
        Client::new(&reference, Purpose::Push, &ClientOptions::default()).unwrap()
    }
}

fn read(stream: &TcpStream, body_max: u64) -> Seen {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
            None => break,
        }
    }
    let line = line.rsplit_once(' ').map(|(line, _)| line.to_owned()).unwrap_or_default();
    let mut seen = Seen { line, headers, body: Vec::new() };
    let length = seen.header("content-length").map_or(0, |length| length.parse().unwrap());
    reader.take(length.min(body_max)).read_to_end(&mut seen.body).unwrap();
    seen
}

/// An answer with a body of its length.
fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

fn target(bytes: &[u8]) -> Target {
    Target { digest: ContentDigest::of(Algorithm::Sha256, bytes), size: bytes.len() as u64 }
}

fn tag() -> Reference {
    Reference::Tag("v1".parse().unwrap())
}

fn bytes() -> Vec<u8> {
    (0..300_000_u32).map(|number| (number >> 3) as u8).collect()
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let fake = Fake::start(|_, seen| {
        let whole = bytes();
        match seen
            .header("range")
            .map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse())
        {
            None => answer("200 OK", &[], &whole)[..100_000].to_vec(),
            Some(from) => {
                let from: usize = from.unwrap();
                let range = format!("bytes {from}-299999/300000");
                // Broken off once more.
                let cut = if from < 150_000 { 60_000 } else { usize::MAX };
                let part = answer("206 Partial Content", &[("Content-Range", &range)], &whole[from..]);
                part[..part.len().min(cut)].to_vec()
            }
        }
    });
    let mut got = Vec::new();
    fake.client().blob(&target(&bytes()), &mut got).unwrap();
    assert!(got == bytes());
    assert!(fake.lines().len() >= 3);
}

#[test]
fn a_registry_without_ranges_sends_it_all_again() {
    let fake = Fake::start(|number, _| {
        let whole = answer("200 OK", &[], &bytes());
        let cut = if number == 0 { 100_000 } else { whole.len() };
        whole[..cut].to_vec()
    });
    let mut got = Vec::new();
    fake.client().blob(&target(&bytes()), &mut got).unwrap();
    assert!(got == bytes());
}

#[test]
fn a_blob_that_is_something_else_is_refused_at_once() {
    let other = bytes().iter().map(|byte| byte ^ 1).collect::<Vec<u8>>();
    let fake = Fake::start(move |_, _| answer("200 OK", &[], &other));
    let error = fake.client().blob(&target(&bytes()), &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ClientError::Wrong { .. }), "{error}");
    assert_eq!(fake.lines().len(), 1);
}

#[test]
fn a_blob_without_end_is_ended() {
    let fake = Fake::start_with(
        |_, _, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while stream.write_all(b"3e8\r\n").is_ok()
                && stream.write_all(&[7; 1000]).is_ok()
                && stream.write_all(b"\r\n").is_ok()
            {}
        },
        0,
    );
    let mut got = Vec::new();
    let error = fake.client().blob(&target(&[7; 5000]), &mut got).unwrap_err();
    assert!(matches!(error, ClientError::Wrong { .. }), "{error}");
    assert!(got.len() <= 5000);
}

#[test]
fn a_registry_that_stalls_is_given_up() {
    let fake = Fake::start_with(
        |_, _, stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\nsome");
            std::thread::sleep(Duration::from_secs(3));
        },
        0,
    );
    let mut client = fake.client();
    client.agent = exchange::agent(&[], Duration::from_millis(100)).unwrap();
    let request = exchange::Outgoing::new("GET", client.path("blobs/x"));
    let mut reader = client.authorized(&request).unwrap().into_body().into_reader();
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(error.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::Other), "{error:?}");
}

#[test]
fn redirects_in_a_circle_end() {
    let fake = Fake::start(|_, _| answer("307 Go", &[("Location", "/v2/a/b/manifests/v1")], b""));
    let error = fake.client().manifest(&tag()).unwrap_err();
    assert!(matches!(error, ClientError::NotARegistry { .. }), "{error}");
    assert_eq!(fake.lines().len(), REDIRECTS_MAX + 1);
    let nowhere = Fake::start(|_, _| answer("302 Go", &[], b""));
    assert!(matches!(nowhere.client().manifest(&tag()), Err(ClientError::NotARegistry { .. })));
}

fn with_user(fake: &Fake) -> Client {
    let mut client = fake.client();
    client.credentials = Some(Credentials::Basic { user: "ann".into(), password: "secret".into() });
    client
}

#[test]
fn credentials_go_to_the_registry_and_to_nobody_that_it_redirects_to() {
    let other = Fake::start(|_, _| answer("200 OK", &[], &bytes()));
    let to = format!("http://{}/storage", other.address);
    let fake = Fake::start(move |_, seen| match seen.header("authorization") {
        None => answer("401 Who", &[("WWW-Authenticate", "Basic realm=\"x\"")], b""),
        Some(_) => answer("307 Go", &[("Location", &to)], b""),
    });
    let mut got = Vec::new();
    with_user(&fake).blob(&target(&bytes()), &mut got).unwrap();
    assert!(got == bytes());
    assert_eq!(fake.seen()[1].header("authorization"), Some("Basic YW5uOnNlY3JldA=="));
    assert_eq!(other.seen().len(), 1);
    assert_eq!(other.seen()[0].header("authorization"), None);
}

#[test]
fn a_token_is_fetched_and_shown() {
    let tokens = Fake::start(|_, _| answer("200 OK", &[], br#"{"access_token":"t0ken"}"#));
    let challenge = format!(
        "Bearer realm=\"http://{}/token\",service=\"reg istry\",scope=\"repository:a/b:pull\"",
        tokens.address
    );
    let fake = Fake::start(move |_, seen| match seen.header("authorization") {
        Some("Bearer t0ken") => answer("200 OK", &[("Content-Type", OCI_MANIFEST)], b"{}"),
        _ => answer("401 Who", &[("WWW-Authenticate", &challenge)], b""),
    });
    let client = with_user(&fake);
    for _ in 0..2 {
        assert_eq!(client.manifest(&tag()).unwrap(), (b"{}".to_vec(), Some(OCI_MANIFEST.into())));
    }
    assert_eq!(tokens.lines(), ["GET /token?scope=repository%3Aa/b%3Apull&service=reg%20istry"]);
    assert_eq!(tokens.seen()[0].header("authorization"), Some("Basic YW5uOnNlY3JldA=="));
    assert_eq!(fake.lines().len(), 3, "the token is shown again without a question");
}

#[test]
fn a_place_of_tokens_without_encryption_gets_no_password() {
    let reference = "r.example.org/a:v1".parse().unwrap();
    let mut client = Client::new(&reference, Purpose::Pull, &ClientOptions::default()).unwrap();
    client.credentials = Some(Credentials::Basic { user: "ann".into(), password: "secret".into() });
    assert_eq!(client.origin, "https://r.example.org");
    // Refused before anything is connected to.
    let request = exchange::Outgoing::new("GET", "http://127.0.0.1:9/v2/".to_owned());
    let error = client.send(&request).unwrap_err();
    assert!(matches!(error, ClientError::Unencrypted { .. }), "{error}");
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let body = br#"{"errors":[{"code":"DENIED","message":"not\u001b[31m yours"}]}"#;
    let fake = Fake::start(|_, _| answer("403 No", &[("Content-Type", "application/json")], body));
    let error = with_user(&fake).manifest(&tag()).unwrap_err();
    assert!(
        matches!(&error, ClientError::Denied { reason, .. } if reason == "DENIED: not[31m yours (403)"),
        "{error}"
    );
    let fake = Fake::start(|_, _| answer("401 No", &[("WWW-Authenticate", "Basic realm=x")], b""));
    assert!(matches!(with_user(&fake).manifest(&tag()), Err(ClientError::Denied { .. })));
    let fake = Fake::start(|_, _| answer("404 No", &[], b""));
    assert!(matches!(fake.client().manifest(&tag()), Err(ClientError::Missing { .. })));
}

#[test]
fn a_web_page_is_called_one() {
    let page = [("Content-Type", "text/html; charset=utf-8")];
    for status in ["200 OK", "404 Not Found", "403 Forbidden"] {
        let fake = Fake::start(move |_, _| answer(status, &page, b"<html>Log in</html>"));
        for error in [
            fake.client().manifest(&tag()).unwrap_err(),
            fake.client().blob(&target(&bytes()), &mut Vec::new()).unwrap_err(),
        ] {
            assert!(error.to_string().contains("web page"), "{status}: {error}");
        }
    }
}

#[test]
fn what_may_pass_is_tried_again_and_not_for_ever() {
    let busy = |number| match number {
        0 => answer("429 Slowly", &[("Retry-After", "0")], b""),
        1 => answer("503 Busy", &[("Retry-After", "0")], b""),
        2 => Vec::new(),
        _ => answer("200 OK", &[], b"{}"),
    };
    let fake = Fake::start(move |number, _| busy(number));
    assert_eq!(fake.client().manifest(&tag()).unwrap().0, b"{}");
    let down = Fake::start(|_, _| answer("503 Busy", &[("Retry-After", "0")], b""));
    assert!(matches!(down.client().manifest(&tag()), Err(ClientError::Unreachable { .. })));
    assert_eq!(down.lines().len(), ATTEMPTS_MAX as usize);
}

#[test]
fn a_manifest_is_what_was_asked_for_and_of_a_bounded_size() {
    let fake = Fake::start(|_, _| answer("200 OK", &[], b"{}"));
    let other = Reference::Digest(ContentDigest::of(Algorithm::Sha256, b"other"));
    assert!(matches!(fake.client().manifest(&other), Err(ClientError::Wrong { .. })));
    let large = Fake::start(|_, _| answer("200 OK", &[], &vec![b' '; 5 << 20]));
    assert!(matches!(large.client().manifest(&tag()), Err(ClientError::Wrong { .. })));
}

#[test]
fn an_upload_goes_on_where_it_broke_off() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes()).unwrap();
    let upload = [("Location", "/v2/a/b/blobs/uploads/1"), ("Range", "0-99999")];
    let fake = Fake::start_with(
        move |_, seen, stream| {
            let said = match seen.line.split(' ').next().unwrap() {
                "HEAD" => answer("404 No", &[], b""),
                "POST" => answer("202 Accepted", &upload, b""),
                // The connection is cut while it is being sent.
                "PUT" if seen.header("content-length") == Some("300000") => Vec::new(),
                "GET" => answer("204 No Content", &upload, b""),
                "PATCH" => answer("202 Accepted", &upload, b""),
                "PUT" => answer("201 Created", &[], b""),
                other => panic!("{other}"),
            };
            let _ = stream.write_all(&said);
        },
        200_000,
    );
    let pushed = fake.client().push_blob(&target(&bytes()), &file).unwrap();
    assert_eq!(pushed, Pushed::Sent);
    let seen = fake.seen();
    let patch = seen.iter().find(|seen| seen.line.starts_with("PATCH")).unwrap();
    assert_eq!(patch.header("content-range"), Some("100000-299999"));
    assert!(patch.body == bytes()[100_000..]);
}

#[test]
fn an_upload_that_can_not_be_gone_on_with_is_begun_again() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes()).unwrap();
    let upload = [("Location", "/v2/a/b/blobs/uploads/1"), ("Range", "0-99999")];
    let fake = Fake::start(move |number, seen| match seen.line.split(' ').next().unwrap() {
        "HEAD" => answer("404 No", &[], b""),
        "POST" => answer("202 Accepted", &upload, b""),
        "PUT" if number < 4 => Vec::new(),
        "GET" => answer("204 No Content", &upload, b""),
        // The rest of the broken request arrived in the meantime.
        "PATCH" => answer("416 Elsewhere", &[], b""),
        _ => answer("201 Created", &[], b""),
    });
    assert_eq!(fake.client().push_blob(&target(&bytes()), &file).unwrap(), Pushed::Sent);
    let begun = fake.lines().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(begun, 2);
    assert!(fake.seen().last().unwrap().body == bytes());
}

#[test]
fn a_registry_that_lists_no_referrers_gets_a_list() {
    let descriptor = |bytes: &[u8]| {
        let Target { digest, size } = target(bytes);
        serde_json::json!({ "mediaType": "x/y", "digest": digest.to_string(), "size": size })
    };
    let subject = target(b"subject").digest;
    let text = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(b"{}"), "layers": [],
        "subject": descriptor(b"subject"), "annotations": { "a": "b" },
    });
    let text = text.to_string().into_bytes();
    let manifest = crate::manifest::Manifest::parse(None, &text).unwrap();
    let list: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&list);
    let fake = Fake::start(move |_, seen| {
        let mut kept = kept.lock().unwrap();
        match seen.line.split(' ').next().unwrap() {
            "PUT" if seen.line.contains("sha256-") => {
                *kept = Some(seen.body.clone());
                answer("201 Created", &[], b"")
            }
            "PUT" => answer("201 Created", &[], b""),
            _ => match &*kept {
                Some(list) => answer("200 OK", &[], list),
                None => answer("404 No", &[], b""),
            },
        }
    });
    for _ in 0..2 {
        fake.client().push_referrer(&manifest, &text).unwrap();
    }
    let found: serde_json::Value = serde_json::from_slice(&list.lock().unwrap().clone().unwrap()).unwrap();
    let mut entry = descriptor(&text);
    entry["mediaType"] = OCI_MANIFEST.into();
    entry["artifactType"] = "x/y".into();
    entry["annotations"] = serde_json::json!({ "a": "b" });
    assert_eq!(found["manifests"], serde_json::json!([entry]), "once");
    assert!(fake.lines().iter().any(|line| line.ends_with(&format!("manifests/sha256-{}", subject.hex()))));
    for other in ["[]", "7", "\"a\"", "null", "{}"] {
        *list.lock().unwrap() = Some(other.into());
        let refused = fake.client().push_referrer(&manifest, &text).unwrap_err();
        assert!(matches!(refused, ClientError::Wrong { .. }), "{other}: {refused}");
    }
    // One that lists them is asked for no list.
    let lists = Fake::start(|_, _| answer("201 Created", &[("OCI-Subject", "sha256:x")], b""));
    lists.client().push_referrer(&manifest, &text).unwrap();
    assert_eq!(lists.lines().len(), 1);
}

#[test]
fn referrers_are_listed_page_by_page_or_by_the_tag_that_stands_in_for_a_list() {
    let entry = |text: &[u8]| {
        let Target { digest, size } = target(text);
        serde_json::json!({ "mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": size })
    };
    let list = |text: &[u8]| {
        let list =
            serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(text)] });
        list.to_string().into_bytes()
    };
    let subject = target(b"subject").digest;
    let pages = [list(b"a"), list(b"b")];
    let paged = Fake::start(move |number, seen| {
        assert!(seen.line.contains("/referrers/sha256:"), "{}", seen.line);
        let next = r#"</v2/a/b/referrers/sha256:x?last=a>; rel="next""#;
        // A next page elsewhere would be told who asks.
        let elsewhere = r#"<http://127.0.0.2:1/v2/x>; rel="next""#;
        let link = [next, elsewhere][number];
        answer("200 OK", &[("Content-Type", OCI_INDEX), ("Link", link)], &pages[number])
    });
    let digests = |fake: &Fake| -> Vec<ContentDigest> {
        fake.client().referrers(&subject).unwrap().into_iter().map(|it| it.digest).collect()
    };
    assert_eq!(digests(&paged), [target(b"a").digest, target(b"b").digest]);
    assert_eq!(paged.lines().len(), 2);

    let tagged = list(b"c");
    let older = Fake::start(move |_, seen| match seen.line.contains("manifests/sha256-") {
        true => answer("200 OK", &[("Content-Type", OCI_INDEX)], &tagged),
        // A page for people, of a registry that knows no such place.
        false => answer("200 OK", &[("Content-Type", "text/html")], b"<html>"),
    });
    assert_eq!(digests(&older), [target(b"c").digest]);
    let none = Fake::start(|_, _| answer("404 No", &[], b""));
    assert_eq!(digests(&none), []);
}
