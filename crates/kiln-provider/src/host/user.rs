//! Who a program runs as: `user`, `user:group`, `uid` or `uid:gid`, looked up in the image's own files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Real systems have some kilobytes; a hostile image may have anything.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The numbers behind a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks `user` up in the /etc/passwd and /etc/group below `root`. A number needs no entry; a name does.
pub(crate) fn resolve(root: &Path, user: &str) -> Result<Identity, String> {
    resolve_in(&read(&root.join("etc/passwd")), &read(&root.join("etc/group")), user)
}

fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // A file that can't be read has no entries, and the name is reported as unknown.
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn resolve_in(passwd: &str, group: &str, wanted: &str) -> Result<Identity, String> {
    let wanted = if wanted.is_empty() { "0" } else { wanted };
    let (user, group_name) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let entry = passwd.lines().filter_map(PasswdEntry::parse).find(|entry| entry.is(user));
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(entry), _) => entry.uid,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(format!("user `{user}` is not in the image's /etc/passwd")),
    };
    let groups: Vec<GroupEntry<'_>> = group.lines().filter_map(GroupEntry::parse).collect();
    let gid = match group_name {
        Some(name) => match (groups.iter().find(|g| g.name == name), name.parse::<u32>()) {
            (Some(found), _) => found.gid,
            (None, Ok(gid)) => gid,
            (None, Err(_)) => return Err(format!("group `{name}` is not in the image's /etc/group")),
        },
        None => entry.as_ref().map_or(0, |entry| entry.gid),
    };
    // As with Docker: a group that is asked for replaces the ones that the user belongs to.
    let member_of = match (&entry, group_name) {
        (Some(entry), None) => {
            groups.iter().filter(|g| g.members.split(',').any(|m| m == entry.name)).map(|g| g.gid).collect()
        }
        _ => Vec::new(),
    };
    let home = entry.map_or("/", |entry| if entry.home.is_empty() { "/" } else { entry.home });
    Ok(Identity { uid, gid, groups: member_of, home: home.into() })
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid: uid.parse().ok()?, gid: gid.parse().ok()?, home })
    }

    fn is(&self, user: &str) -> bool {
        self.name == user || user.parse() == Ok(self.uid)
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let (name, _, gid) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { name, gid: gid.parse().ok()?, members: fields.next().unwrap_or_default().trim() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n";
    const GROUP: &str = "root:x:0:\nwww-data:x:33:\nssl:x:101:www-data,other\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>, String) {
        let found = resolve_in(PASSWD, GROUP, user).unwrap();
        (found.uid, found.gid, found.groups, found.home)
    }

    #[test]
    fn names_and_numbers_are_found_in_the_image() {
        assert_eq!(ids(""), (0, 0, vec![], "/root".into()));
        assert_eq!(ids("www-data"), (33, 33, vec![101], "/var/www".into()));
        assert_eq!(ids("33"), (33, 33, vec![101], "/var/www".into()));
        assert_eq!(ids("www-data:ssl"), (33, 101, vec![], "/var/www".into()));
        assert_eq!(ids("1000"), (1000, 0, vec![], "/".into()));
        assert_eq!(ids("1000:1001"), (1000, 1001, vec![], "/".into()));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        assert!(resolve_in(PASSWD, GROUP, "nobody").unwrap_err().contains("nobody"));
        assert!(resolve_in(PASSWD, GROUP, "root:nobody").unwrap_err().contains("group `nobody`"));
        assert!(resolve_in("", "", "root").is_err());
        assert!(resolve_in("", "", "").is_ok());
    }
}
