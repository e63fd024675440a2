//! A minimal Debian base beside mmdebstrap.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::installed;
use super::machine::Machine;
use super::table::Table;

const STACK: &str = r#"
stack "base" {}

base "debian" "minimal" {
  suite    = "bookworm"
  packages = []
}

image "minimal" {
  from    = base.debian.minimal
  command = ["/bin/true"]
}
"#;

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write("stack.hcl", STACK);
    machine.kiln(&["lock"]).ok();
    let begin = Instant::now();
    machine.kiln(&["bake"]).ok();
    let ours = begin.elapsed();
    let peer = if installed("mmdebstrap") { Some(mmdebstrap()?) } else { None };
    table.row("a minimal Debian base, packages fetched", ours, peer.map(|time| ("mmdebstrap", time)));
    let begin = Instant::now();
    machine.kiln(&["bake"]).ok();
    table.row("… again, fully cached", begin.elapsed(), None);
    let begin = Instant::now();
    machine.kiln(&["image", "sbom", "base/minimal"]).ok();
    table.row("… its bill of materials", begin.elapsed(), None);
    Ok(())
}

fn mmdebstrap() -> Result<std::time::Duration, String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    let begin = Instant::now();
    let status = Command::new("mmdebstrap")
        .args(["--variant=essential", "--quiet", "bookworm"])
        .arg(folder.path().join("base.tar"))
        .stdout(Stdio::null())
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(begin.elapsed()) } else { Err("mmdebstrap failed".into()) }
}
