//! What the people of a machine settle for its Kiln. Kept in the state folder, and read whenever it matters, so that a change
//! needs no new start.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use kiln_model::ByteSize;
use serde::{Deserialize, Serialize};

use super::paths::StateDir;

const VERSION: u32 = 1;

/// The settings of a state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// How much room the store may take; none means that nobody minds.
    pub disk_budget: Option<ByteSize>,
}

/// `STATE/settings.json`
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsWire {
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    disk_budget_bytes: Option<u64>,
}

impl Settings {
    /// Reads the settings; where there are none, the defaults.
    ///
    /// # Errors
    /// They can't be read, or a later Kiln wrote them: nothing is taken for settled that may not be.
    pub fn read(state: &StateDir) -> io::Result<Self> {
        let bytes = match fs::read(path(state)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            other => other?,
        };
        let wrong = |why: String| {
            io::Error::new(ErrorKind::InvalidData, format!("{} is no settings: {why}", path(state).display()))
        };
        let wire: SettingsWire = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
        if wire.version != VERSION {
            return Err(wrong(format!("a later Kiln wrote version {}", wire.version)));
        }
        Ok(Self { disk_budget: wire.disk_budget_bytes.map(ByteSize) })
    }

    /// Writes the settings: after a crash the old ones or these are there.
    ///
    /// # Errors
    /// The file system refused.
    pub fn write(self, state: &StateDir) -> io::Result<()> {
        let path = path(state);
        let partial = path.with_extension(format!("{}.new", std::process::id()));
        let wire =
            SettingsWire { version: VERSION, disk_budget_bytes: self.disk_budget.map(|ByteSize(it)| it) };
        let text = serde_json::to_string_pretty(&wire).expect("numbers are JSON") + "\n";
        let written = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&partial, &path))
            .and_then(|()| File::open(state.path())?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&partial);
        }
        written
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("settings.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_settled_is_read_back_and_what_is_not_understood_is_no_default() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::new(folder.path());
        assert_eq!(Settings::read(&state).unwrap(), Settings::default());
        let settings = Settings { disk_budget: Some(ByteSize(20_000_000_000)) };
        settings.write(&state).unwrap();
        assert_eq!(Settings::read(&state).unwrap(), settings);
        let golden = "{\n  \"version\": 1,\n  \"disk_budget_bytes\": 20000000000\n}\n";
        assert_eq!(fs::read_to_string(path(&state)).unwrap(), golden, "stored bytes have changed");
        Settings::default().write(&state).unwrap();
        assert_eq!(Settings::read(&state).unwrap(), Settings::default());
        for wrong in ["", "{\"version\": 2}", "{\"version\": 1, \"more\": 1}"] {
            fs::write(path(&state), wrong).unwrap();
            assert_eq!(Settings::read(&state).unwrap_err().kind(), ErrorKind::InvalidData, "{wrong}");
        }
    }
}
