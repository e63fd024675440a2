//! One attempt: who is asked, and whether they answer as they should. Whatever they do, this comes back in time.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::ask::{Ask, Method, Whom};
use ureq::RequestBuilder;

use crate::runtime::outward::{agent, brief};

/// Instances that are asked at once: their answers are short, and one that is slow holds up few.
const SIDE_BY_SIDE_MAX: usize = 16;

/// What is looked through for a text. A page that is larger says early what it is.
const BODY_BYTES_MAX: u64 = 1 << 20;

/// What is read of an answer that is not the right one: its beginning is told.
const TOLD_BYTES_MAX: u64 = 4 << 10;

/// Asks, and returns what was answered. `authorization` says who asks.
///
/// # Errors
/// Why it is not what was asked for, for people.
pub(super) fn to(
    ask: &Ask,
    instances: &[(String, SocketAddr)],
    authorization: Option<&str>,
) -> Result<String, String> {
    let end = Instant::now() + ask.timeout.as_duration();
    let attempt = Attempt { ask, authorization, end };
    match &ask.whom {
        Whom::Url(url) => {
            attempt.one(url).map(|text| format!("it {text}")).map_err(|text| brief(&format!("it {text}")))
        }
        Whom::Instances { .. } if instances.is_empty() => {
            Err(format!("no new instance of {} is healthy", ask.service))
        }
        Whom::Instances { path, .. } => attempt.all(path, instances),
    }
}

/// What all who are asked in one attempt are asked with.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    ask: &'a Ask,
    authorization: Option<&'a str>,
    end: Instant,
}

impl Attempt<'_> {
    /// Asks all of them, and stops at the first that does not answer as it should.
    fn all(&self, path: &str, instances: &[(String, SocketAddr)]) -> Result<String, String> {
        let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            while let Some((place, address)) = instances.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(text) = self.one(&format!("http://{address}{path}")) {
                    next.store(instances.len(), Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    failure.get_or_insert_with(|| brief(&format!("{place} {text}")));
                }
            }
        };
        thread::scope(|scope| {
            for _ in 1..instances.len().min(SIDE_BY_SIDE_MAX) {
                // Where there is no room for another thread, fewer do it.
                let _ = thread::Builder::new().name("ask".into()).spawn_scoped(scope, work);
            }
            work();
        });
        match failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(failure) => Err(failure),
            None => Ok(format!("{} answered", instances.len())),
        }
    }

    /// Asks one of them: `answered 200`, or what it did instead.
    fn one(&self, url: &str) -> Result<String, String> {
        let Self { ask, authorization, end } = *self;
        let left = end.saturating_duration_since(Instant::now());
        let late = || format!("did not answer within {}", ask.timeout);
        if left < Duration::from_millis(1) {
            return Err(late());
        }
        let agent = agent(left, 0, ask.access.roots.as_deref());
        let answer = match ask.method {
            Method::Get => with(agent.get(url), authorization).call(),
            Method::Head => with(agent.head(url), authorization).call(),
            Method::Post => with(agent.post(url), authorization).send_empty(),
        };
        let answer = answer.map_err(|error| match error {
            ureq::Error::Timeout(_) => late(),
            error => format!("did not answer: {error}"),
        });
        let mut answer = answer?;
        let status = answer.status().as_u16();
        let is_right = ask.accepts(status);
        let wanted = ask.contains.as_deref().filter(|_| is_right);
        if is_right && wanted.is_none() {
            return Ok(format!("answered {status}"));
        }
        let mut body = Vec::new();
        let most = if wanted.is_some() { BODY_BYTES_MAX } else { TOLD_BYTES_MAX };
        let read = answer.body_mut().as_reader().take(most).read_to_end(&mut body);
        let text = String::from_utf8_lossy(&body);
        let beginning = if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
        match (wanted, read) {
            (None, _) => Err(format!("answered {status}{beginning}")),
            (Some(wanted), _) if text.contains(wanted) => Ok(format!("answered {status}")),
            (Some(_), Err(error)) => Err(format!("answered {status}, and not to the end: {error}")),
            (Some(wanted), Ok(_)) => Err(format!("answered {status} without {wanted:?}{beginning}")),
        }
    }
}

fn with<B>(question: RequestBuilder<B>, authorization: Option<&str>) -> RequestBuilder<B> {
    match authorization {
        Some(authorization) => question.header("authorization", authorization),
        None => question,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::sync::mpsc;

    use kiln_model::access::Access;
    use kiln_model::ask::Again;
    use kiln_model::{Millis, PortName, ServiceName};

    use super::*;

    fn ask(whom: Whom) -> Ask {
        Ask {
            service: ServiceName::new("web").unwrap(),
            whom,
            method: Method::Get,
            status: None,
            contains: None,
            timeout: Millis::from_secs(60),
            again: Again::default(),
            access: Access::default(),
        }
    }

    /// Answers one connection with this, and keeps it open until the asker has enough. What it was asked can be received.
    fn server(answer: &'static str) -> (SocketAddr, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (told, heard) = mpsc::channel();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let _ = told.send(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = stream.read(&mut [0]);
        });
        (address, heard)
    }

    fn asked(answer: &'static str, change: impl FnOnce(&mut Ask)) -> Result<String, String> {
        let (address, _heard) = server(answer);
        let mut ask = ask(Whom::Url(format!("http://{address}/ready?deep=1")));
        change(&mut ask);
        to(&ask, &[], None)
    }

    const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nall ready";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 11\r\n\r\nno\x1b[1mspare";
    const MOVED: &str = "HTTP/1.1 302 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn an_answer_is_judged_by_its_status_and_its_text() {
        let says = |answer: Result<String, String>| answer.unwrap_or_else(|reason| format!("no: {reason}"));
        assert_eq!(says(asked(FINE, |_| {})), "it answered 200");
        assert_eq!(says(asked(FINE, |ask| ask.contains = Some("ready".into()))), "it answered 200");
        assert_eq!(
            says(asked(FINE, |ask| ask.contains = Some("sold".into()))),
            "no: it answered 200 without \"sold\": all ready"
        );
        assert_eq!(says(asked(FINE, |ask| ask.status = Some(204))), "no: it answered 200: all ready");
        assert_eq!(says(asked(BUSY, |_| {})), "no: it answered 503: no [1mspare", "nothing for a terminal");
        assert_eq!(says(asked(BUSY, |ask| ask.status = Some(503))), "it answered 503");
        assert_eq!(says(asked(MOVED, |_| {})), "no: it answered 302", "nobody is followed");
        assert_eq!(says(asked(MOVED, |ask| ask.status = Some(302))), "it answered 302");
        let nonsense = says(asked("SSH-2.0-OpenSSH\r\n\r\n", |_| {}));
        assert!(nonsense.starts_with("no: it did not answer: "), "{nonsense}");
        let cut = "HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nall";
        let endless = says(asked(cut, |ask| {
            (ask.contains, ask.timeout) = (Some("ready".into()), Millis(300));
        }));
        assert!(endless.starts_with("no: it answered 200, and not to the end: "), "{endless}");
    }

    #[test]
    fn who_is_silent_or_away_is_waited_for_until_the_timeout() {
        let silent = asked("", |ask| ask.timeout = Millis(200));
        assert_eq!(silent.unwrap_err(), "it did not answer within 200ms");
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let reason = to(&ask(Whom::Url(format!("http://{nobody}/"))), &[], None).unwrap_err();
        assert!(reason.starts_with("it did not answer: "), "{reason}");
    }

    #[test]
    fn each_instance_is_asked_and_all_must_answer() {
        let port = PortName::new("http").unwrap();
        let ask =
            |method| Ask { method, ..ask(Whom::Instances { port: port.clone(), path: "/ready".into() }) };
        let (one, two) = (server(FINE), server(FINE));
        let place = |at: usize, address: SocketAddr| (format!("web/{at}"), address);
        let all = [place(0, one.0), place(1, two.0)];
        assert_eq!(to(&ask(Method::Post), &all, None).as_deref(), Ok("2 answered"));
        for heard in [one.1, two.1] {
            let head = heard.recv().unwrap();
            assert!(head.starts_with("POST /ready HTTP/1.1\r\n"), "{head}");
        }
        let (fine, busy) = (server(FINE), server(BUSY));
        let all = [place(0, fine.0), place(1, busy.0)];
        assert!(to(&ask(Method::Get), &all, None).unwrap_err().starts_with("web/1 answered 503: no"));
        assert_eq!(to(&ask(Method::Get), &[], None).unwrap_err(), "no new instance of web is healthy");
    }
}
