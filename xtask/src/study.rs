//! `cargo xtask study`: simulates canaries and writes what came of it into `docs/statistics.md`.

use std::fs;

use crate::cargo::cargo;
use crate::metadata;

/// The tables of the page stand between these lines.
const BEGIN: &str = "<!-- cargo xtask study -->\n";
const END: &str = "<!-- end of the study -->\n";

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let output = cargo()
        .args([
            "run",
            "--release",
            "--locked",
            "--quiet",
            "--package",
            "kiln-stats",
            "--example",
            "study",
            "--",
        ])
        .args(arguments)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run cargo: {error}"))?;
    let tables = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err("the study failed".to_owned());
    }
    println!("{tables}");
    if !arguments.is_empty() {
        println!("(docs/statistics.md is as it was: it holds the whole study alone)");
        return Ok(());
    }
    let path = metadata::root().join("docs/statistics.md");
    let page = fs::read_to_string(&path).map_err(|error| format!("docs/statistics.md: {error}"))?;
    let page = replaced(&page, &tables).ok_or("docs/statistics.md: the lines around the study are gone")?;
    fs::write(&path, page).map_err(|error| format!("docs/statistics.md: {error}"))
}

fn replaced(page: &str, tables: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n\n{END}{after}", tables.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_take_the_place_of_the_last_ones_alone() {
        let page = format!("a\n{BEGIN}old\n{END}z\n");
        assert_eq!(replaced(&page, "\nnew\n").unwrap(), format!("a\n{BEGIN}\nnew\n\n{END}z\n"));
        assert_eq!(replaced("a\n", "new"), None);
    }
}
