//! Who is at the other end of a socket, by the kernel's word.

use std::fs;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use kiln_model::Actor;
use tokio::net::UnixListener;

/// The process at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user; none if the kernel does not tell.
    uid: Option<u32>,
    /// Its process.
    pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let credentials = stream.io().peer_cred().ok();
        Self {
            uid: credentials.map(|credentials| credentials.uid()),
            pid: credentials.and_then(|credentials| credentials.pid()),
        }
    }
}

impl Peer {
    /// Whether it may ask for anything: root, or whoever Kiln itself runs as.
    pub fn is_trusted(&self) -> bool {
        self.uid.is_some_and(|uid| uid == 0 || uid == rustix::process::geteuid().as_raw())
    }

    /// Its name for the log: who logged in, even behind `sudo`, else who it runs as.
    pub fn actor(&self) -> Actor {
        let login = self.pid.and_then(login_uid);
        let Some(uid) = login.or(self.uid) else { return Actor::User("unknown".into()) };
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        Actor::User(name_of(uid, &passwd).unwrap_or_else(|| format!("uid {uid}")))
    }
}

/// The audit system's login uid survives `sudo` and `su`.
fn login_uid(pid: i32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    // The kernel's word for "never logged in", such as a service.
    text.trim().parse().ok().filter(|uid| *uid != u32::MAX)
}

fn name_of(uid: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_named_by_the_third_field_of_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nalice:x:1000:0::/:/bin/sh\n";
        assert_eq!(name_of(1000, passwd).as_deref(), Some("alice"));
        assert_eq!(name_of(0, passwd).as_deref(), Some("root"));
        assert_eq!(name_of(5, passwd), None);
    }

    #[test]
    fn who_is_unknown_is_not_trusted() {
        assert!(!Peer { uid: None, pid: None }.is_trusted());
        assert!(Peer { uid: Some(0), pid: None }.is_trusted());
    }
}
