//! What is to be sent, and how far the log was read: files that outlive the controller.
//!
//! A letter is there before the log counts as read up to its entry, and goes once it was delivered or given up. So one that was
//! sent may be sent again after a crash, with the same id, and none is forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiln_model::notify::{Occasion, Webhook};
use kiln_model::{EnvKey, EnvName, Position, RolloutId, StackName, Timestamp};
use kiln_store::Encoded;
use serde::{Deserialize, Serialize};

use super::letter::{Followed, Letter};

/// A file of letters or of the cursor that is larger was written by nobody.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How far the log was read, and what has to be known to go on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) position: Position,
    pub(super) followed: BTreeMap<EnvKey, Followed>,
}

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Post(PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CursorWire {
    version: u32,
    position: u64,
    followed: BTreeMap<String, Followed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LetterWire {
    version: u32,
    id: String,
    place: String,
    env: String,
    rollout: u64,
    webhook: String,
    to: Encoded<Webhook>,
    at: u64,
    occasion: String,
    body: String,
}

/// The form in which both are written.
const VERSION: u32 = 1;

impl Post {
    /// Opens the folder, making it where it is missing.
    ///
    /// # Errors
    /// The file system refused.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("notices");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join("letters"))?;
        Ok(Self(folder))
    }

    /// Returns how far the log was read; none if it never was.
    ///
    /// # Errors
    /// It can't be read, or is none.
    pub(super) fn cursor(&self) -> io::Result<Option<Cursor>> {
        let wire: CursorWire = match read(&self.cursor_path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => parse(&other?)?,
        };
        check(wire.version)?;
        let followed = wire.followed.into_iter().map(|(env, followed)| Ok((key(&env)?, followed)));
        let followed = followed.collect::<io::Result<_>>()?;
        Ok(Some(Cursor { position: Position(wire.position), followed }))
    }

    /// Returns the versions of the secrets that what is to be told is signed with.
    ///
    /// # Errors
    /// It can't be read how far the log was, or the folder.
    pub(super) fn signing(&self) -> io::Result<BTreeSet<String>> {
        // In this order: a letter is there before the cursor says that it need not be written any more.
        let followed = self.cursor()?.unwrap_or_default().followed;
        let of = |webhook: &Webhook| webhook.secret.version.clone();
        let mut versions: BTreeSet<String> =
            followed.values().flat_map(|followed| followed.webhooks.values().map(of)).collect();
        versions.extend(self.letters()?.iter().map(|letter| of(&letter.to)));
        Ok(versions)
    }

    /// Notes how far the log was read.
    ///
    /// # Errors
    /// The file system refused; what was noted before is still there.
    pub(super) fn keep_cursor(&self, cursor: &Cursor) -> io::Result<()> {
        let Cursor { position, followed } = cursor;
        let followed = followed.iter().map(|(env, followed)| (env.to_string(), followed.clone())).collect();
        let wire = CursorWire { version: VERSION, position: position.0, followed };
        self.write(&self.cursor_path(), &serde_json::to_vec(&wire).expect("text and numbers are JSON"))
    }

    /// Returns the letters that were not delivered yet, the oldest first. One that can't be read is left alone and told of.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(super) fn letters(&self) -> io::Result<Vec<Letter>> {
        let names = fs::read_dir(self.0.join("letters"))?.map(|item| item.map(|item| item.path()));
        let mut paths = names.collect::<io::Result<Vec<PathBuf>>>()?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json"));
        paths.sort_unstable();
        let readable = |path: PathBuf| match read(&path).and_then(|bytes| letter(&bytes)) {
            Ok(letter) => Some(letter),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a notice can't be read, and is not sent");
                None
            }
        };
        Ok(paths.into_iter().filter_map(readable).collect())
    }

    /// Keeps a letter until [`Post::forget`].
    ///
    /// # Errors
    /// The file system refused.
    pub(super) fn keep(&self, letter: &Letter) -> io::Result<()> {
        let Letter { id, place, env, rollout, webhook, to, at, occasion, body } = letter;
        let wire = LetterWire {
            version: VERSION,
            id: id.clone(),
            place: place.clone(),
            env: env.to_string(),
            rollout: rollout.0,
            webhook: webhook.clone(),
            to: Encoded(to.clone()),
            at: at.0,
            occasion: occasion.word().to_owned(),
            body: body.clone(),
        };
        let bytes = serde_json::to_vec(&wire).expect("text and numbers are JSON");
        self.write(&self.letter_path(letter), &bytes)
    }

    /// Removes a letter.
    pub(super) fn forget(&self, letter: &Letter) {
        if let Err(error) = fs::remove_file(self.letter_path(letter)) {
            tracing::warn!(%error, id = letter.id, "a notice that is over can't be removed, and may be sent again");
        }
    }

    fn cursor_path(&self) -> PathBuf {
        self.0.join("cursor.json")
    }

    /// The names sort as the letters do.
    fn letter_path(&self, letter: &Letter) -> PathBuf {
        self.0.join("letters").join(format!("{}-{}.json", letter.place, letter.id))
    }

    /// Writes a file: after a crash the old one or this one is there.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let partial = path.with_extension("new");
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, path))
            .and_then(|()| File::open(path.parent().unwrap_or(&self.0))?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(wrong("it is too large"));
    }
    fs::read(path)
}

fn letter(bytes: &[u8]) -> io::Result<Letter> {
    let wire: LetterWire = parse(bytes)?;
    check(wire.version)?;
    let occasion = Occasion::of_word(&wire.occasion).ok_or_else(|| wrong("its occasion is unknown"))?;
    Ok(Letter {
        env: key(&wire.env)?,
        id: wire.id,
        place: wire.place,
        rollout: RolloutId(wire.rollout),
        webhook: wire.webhook,
        to: wire.to.0,
        at: Timestamp(wire.at),
        occasion,
        body: wire.body,
    })
}

fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(|error| wrong(&error.to_string()))
}

fn check(version: u32) -> io::Result<()> {
    if version == VERSION { Ok(()) } else { Err(wrong("a later Kiln wrote it")) }
}

fn key(text: &str) -> io::Result<EnvKey> {
    let names = text.split_once('/').and_then(|(stack, env)| {
        Some(EnvKey { stack: StackName::new(stack).ok()?, env: EnvName::new(env).ok()? })
    });
    names.ok_or_else(|| wrong("it names no environment"))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use kiln_model::SecretName;
    use kiln_model::instance::SecretRef;

    use super::*;

    fn letter_of(place: &str) -> Letter {
        let secret = SecretRef { name: SecretName::new("hook").unwrap(), version: "v1".into() };
        let events = [Occasion::Completed].into();
        Letter {
            id: "msg_1".into(),
            place: place.into(),
            env: key("shop/prod").unwrap(),
            rollout: RolloutId(7),
            webhook: "chat".into(),
            to: Webhook { url: "http://127.0.0.1:1/".into(), events, secret },
            at: Timestamp(9),
            occasion: Occasion::Completed,
            body: "{}".into(),
        }
    }

    #[test]
    fn letters_come_back_in_their_order_until_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let post = Post::open(folder.path()).unwrap();
        let (first, second) = (letter_of("0000000000000009-0"), letter_of("0000000000000010-0"));
        post.keep(&second).unwrap();
        post.keep(&first).unwrap();
        post.keep(&first).unwrap();
        fs::write(folder.path().join("notices/letters/0.json"), "{").unwrap();
        fs::write(folder.path().join("notices/letters/1.new"), "{").unwrap();
        let post = Post::open(folder.path()).unwrap();
        assert_eq!(post.letters().unwrap(), [first.clone(), second.clone()]);
        assert_eq!(post.signing().unwrap(), ["v1".to_owned()].into());
        post.forget(&first);
        assert_eq!(post.letters().unwrap(), std::slice::from_ref(&second));
        let stored = fs::read_to_string(post.letter_path(&second)).unwrap();
        let golden = concat!(
            r#"{"version":1,"id":"msg_1","place":"0000000000000010-0","env":"shop/prod","rollout":7,"webhook":"chat","#,
            r#""to":{"url":"http://127.0.0.1:1/","events":["completed"],"secret":"hook","version":"v1"},"#,
            r#""at":9,"occasion":"completed","body":"{}"}"#
        );
        assert_eq!(stored, golden, "stored bytes have changed");
    }

    #[test]
    fn the_cursor_is_read_back_and_what_is_none_is_no_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let post = Post::open(folder.path()).unwrap();
        assert_eq!(post.cursor().unwrap(), None);
        let webhooks = [("chat".to_owned(), letter_of("0").to)].into();
        let mut followed = Followed::default();
        followed.webhooks = webhooks;
        let cursor =
            Cursor { position: Position(12), followed: [(key("shop/prod").unwrap(), followed)].into() };
        post.keep_cursor(&cursor).unwrap();
        assert_eq!(post.cursor().unwrap(), Some(cursor));
        let stored = fs::read_to_string(post.cursor_path()).unwrap();
        let golden = concat!(
            r#"{"version":1,"position":12,"followed":{"shop/prod":{"webhooks":{"chat":{"url":"http://127.0.0.1:1/","#,
            r#""events":["completed"],"secret":"hook","version":"v1"}},"rollout":null}}}"#
        );
        assert_eq!(stored, golden, "stored bytes have changed");
        let later = stored.replacen("1", "2", 1);
        for wrong in ["", "{}", later.as_str()] {
            fs::write(post.cursor_path(), wrong).unwrap();
            assert_eq!(post.cursor().unwrap_err().kind(), io::ErrorKind::InvalidData, "{wrong}");
        }
    }
}
