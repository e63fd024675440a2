//! Users and groups by the names that the image has for them.

use kiln_store::{Kind, Objects, ReadError, Tree, TreePath};

use crate::nearest::nearest;
use crate::sandbox::User;

/// The account files have a few kilobytes.
const ACCOUNTS_BYTES_MAX: u64 = 16 << 20;

/// The accounts of an image.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Why a name means nobody.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The image has no such user or group.
    #[error("the image has no {kind} `{name}`")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// What was probably meant.
        nearest: Option<String>,
    },
    /// The account files can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Accounts {
    /// Reads the accounts of a tree; one without account files has numbers only.
    pub(crate) fn read(tree: &Tree, objects: &Objects) -> Result<Self, AccountError> {
        let users = read(tree, objects, "etc/passwd")?;
        let groups = read(tree, objects, "etc/group")?;
        let users = users.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            Some(Account { name: (*name).into(), uid, gid, home: (*home).into() })
        });
        let groups = groups.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, gid, members, ..] = fields.as_slice() else { return None };
            let members = members.split(',').filter(|name| !name.is_empty()).map(Into::into).collect();
            Some(Group { name: (*name).into(), gid: gid.parse().ok()?, members })
        });
        Ok(Self { users: users.collect(), groups: groups.collect() })
    }

    /// Returns who `user`, `user:group`, `uid` or `uid:gid` is; nothing means root.
    pub(crate) fn resolve(&self, text: &str) -> Result<User, AccountError> {
        if text.is_empty() {
            return Ok(User::default());
        }
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let by_name = self.users.iter().find(|account| account.name == user);
        let number = user.parse::<u32>().ok();
        let account = by_name.or_else(|| self.users.iter().find(|account| Some(account.uid) == number));
        let uid = match (account, number) {
            (Some(account), _) => account.uid,
            (None, Some(number)) => number,
            (None, None) => return Err(unknown("user", user, self.users.iter().map(|one| &one.name))),
        };
        let gid = match group {
            Some(group) => self.group(group)?,
            // Root's group for a number that the image knows nothing of, as in Docker.
            None => account.map_or(0, |account| account.gid),
        };
        let others = self
            .groups
            .iter()
            .filter(|group| account.is_some_and(|account| group.members.contains(&account.name)));
        // With a group of its own choice a step has no others, as in Docker.
        let groups = if group.is_some() { Vec::new() } else { others.map(|group| group.gid).collect() };
        Ok(User { uid, gid, groups })
    }

    fn group(&self, text: &str) -> Result<u32, AccountError> {
        let by_name = self.groups.iter().find(|group| group.name == text).map(|group| group.gid);
        by_name
            .or_else(|| text.parse().ok())
            .ok_or_else(|| unknown("group", text, self.groups.iter().map(|one| &one.name)))
    }

    /// Returns the home folder of a user.
    pub(crate) fn home(&self, uid: u32) -> &str {
        let account = self.users.iter().find(|account| account.uid == uid);
        account.map_or(if uid == 0 { "/root" } else { "/" }, |account| &account.home)
    }
}

fn read(tree: &Tree, objects: &Objects, path: &str) -> Result<String, ReadError> {
    let path = TreePath::parse(path).expect("a constant path is valid");
    let entry = tree.resolve(&path, true).ok().and_then(|path| tree.get(&path));
    match entry.map(|entry| &entry.kind) {
        Some(Kind::File { digest, .. }) => {
            let bytes = objects.read_verified(digest, ACCOUNTS_BYTES_MAX)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        _ => Ok(String::new()),
    }
}

fn unknown<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a String>) -> AccountError {
    let nearest = nearest(name, known.map(String::as_str)).map(Into::into);
    AccountError::Unknown { kind, name: name.into(), nearest }
}

#[cfg(test)]
mod tests {
    use kiln_store::{Entry, Store};

    use super::*;

    fn accounts() -> Accounts {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut tree = Tree::new();
        let mut put = |path: &str, text: &str| {
            let digest = store.objects.put_bytes(text.as_bytes()).unwrap();
            tree.insert(&TreePath::parse(path).unwrap(), Entry::file(0o644, digest, text.len() as u64))
                .unwrap();
        };
        put("passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:34:www:/var/www:/bin/false\nbroken\n");
        put("group", "root:x:0:\nwww-data:x:34:\nssl:x:50:www-data,other\n");
        let mut system = Tree::new();
        system.insert(&TreePath::parse("etc").unwrap(), Entry::dir(0o755)).unwrap();
        system.overlay(&TreePath::parse("etc").unwrap(), &tree).unwrap();
        Accounts::read(&system, &store.objects).unwrap()
    }

    #[test]
    fn a_user_is_found_by_name_or_number_with_its_groups() {
        let accounts = accounts();
        let www = User { uid: 33, gid: 34, groups: vec![50] };
        assert_eq!(accounts.resolve("www-data").unwrap(), www);
        assert_eq!(accounts.resolve("33").unwrap(), www);
        assert_eq!(accounts.resolve("www-data:ssl").unwrap(), User { uid: 33, gid: 50, groups: vec![] });
        assert_eq!(accounts.resolve("1000").unwrap(), User { uid: 1000, gid: 0, groups: vec![] });
        assert_eq!(accounts.resolve("").unwrap(), User::default());
        assert_eq!(accounts.home(33), "/var/www");
    }

    #[test]
    fn an_unknown_name_comes_with_what_was_meant() {
        let error = accounts().resolve("ww-data").unwrap_err();
        assert!(matches!(error, AccountError::Unknown { nearest: Some(name), .. } if name == "www-data"));
        assert!(accounts().resolve("root:nobody").is_err());
    }
}
