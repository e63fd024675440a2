//! The two small files that a restarted edge begins with: the table and the anchor.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kiln_model::route::RouteTable;

use crate::limits::FRAME_BYTES_MAX;
use crate::wire::{AnchorWire, TableWire};

/// The edge's own folder, `STATE/edge`.
#[derive(Debug, Clone)]
pub(crate) struct EdgeFolder {
    path: PathBuf,
}

/// What was found at start.
#[derive(Debug)]
pub(crate) enum Loaded {
    Nothing,
    Table(RouteTable),
    /// The file was set aside under another name; the text says why.
    Damaged(String),
}

impl EdgeFolder {
    pub(crate) fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join("edge");
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Stores the table and returns once it is durable.
    pub(crate) fn put_table(&self, wire: &TableWire) -> io::Result<()> {
        self.replace("table.json", &serde_json::to_vec(wire)?)
    }

    /// Loads the table. A damaged one is kept beside as `table.json.damaged`.
    pub(crate) fn load_table(&self) -> io::Result<Loaded> {
        let path = self.file("table.json");
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            other => other?,
        };
        let parsed = read_bounded(&path).and_then(|bytes| parse_table(&bytes));
        match parsed {
            Ok(table) => Ok(Loaded::Table(table)),
            Err(why) => {
                let aside = self.file("table.json.damaged");
                fs::rename(&path, &aside)?;
                Ok(Loaded::Damaged(format!("{}: {why}; it is kept as {}", path.display(), aside.display())))
            }
        }
    }

    pub(crate) fn put_anchor(&self, anchor: &AnchorWire) -> io::Result<()> {
        self.replace("anchor.json", &serde_json::to_vec(anchor)?)
    }

    /// Loads the anchor; none if there is none or it can't be read back.
    pub(crate) fn load_anchor(&self) -> Option<AnchorWire> {
        read_anchor(&self.path).ok()?
    }

    /// Replaces a file as a whole: after a power loss either the old or the new bytes are there.
    fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.file(&format!("{name}.tmp"));
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.file(name))?;
        File::open(&self.path)?.sync_all()
    }
}

/// Reads the anchor of an edge's folder.
pub(crate) fn read_anchor(folder: &Path) -> Result<Option<AnchorWire>, String> {
    let path = folder.join("anchor.json");
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| error.to_string())?,
    };
    serde_json::from_slice(&read_bounded(&path)?).map(Some).map_err(|error| error.to_string())
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    let length = fs::metadata(path).map_err(|e| e.to_string())?.len();
    if length > FRAME_BYTES_MAX as u64 {
        return Err(format!("{length} bytes are more than a table may have"));
    }
    fs::read(path).map_err(|e| e.to_string())
}

fn parse_table(bytes: &[u8]) -> Result<RouteTable, String> {
    let wire: TableWire = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    wire.into_model().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use kiln_model::{Fence, Position, Term};

    use super::*;

    #[test]
    fn a_table_reads_back_and_a_damaged_one_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let edge = EdgeFolder::open(folder.path()).unwrap();
        assert!(matches!(edge.load_table().unwrap(), Loaded::Nothing));
        let fence = Fence { term: Term(1), position: Position(2) };
        let table = RouteTable { fence, ..RouteTable::default() };
        edge.put_table(&(&table).into()).unwrap();
        assert!(matches!(edge.load_table().unwrap(), Loaded::Table(read) if read == table));

        let bytes = fs::read(edge.file("table.json")).unwrap();
        fs::write(edge.file("table.json"), &bytes[..bytes.len() / 2]).unwrap();
        assert!(matches!(edge.load_table().unwrap(), Loaded::Damaged(_)));
        assert!(edge.file("table.json.damaged").exists());
        assert!(matches!(edge.load_table().unwrap(), Loaded::Nothing));
    }

    #[test]
    fn an_anchor_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let edge = EdgeFolder::open(folder.path()).unwrap();
        assert_eq!(edge.load_anchor(), None);
        let anchor = AnchorWire { position: "@12".to_owned(), hash: "ff".to_owned(), at_ms: Some(3) };
        edge.put_anchor(&anchor).unwrap();
        assert_eq!(edge.load_anchor(), Some(anchor));
        fs::write(edge.file("anchor.json"), "{").unwrap();
        assert_eq!(edge.load_anchor(), None);
        assert!(read_anchor(&edge.path).is_err(), "who looks for it is told");
    }
}
