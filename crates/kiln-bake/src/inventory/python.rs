//! Python distributions: `METADATA` of wheels, `PKG-INFO` of eggs.
//!
//! Source: the core metadata specification of packaging.python.org.

use kiln_store::{ReadError, TreePath};

use super::licence::Licence;
use super::package::{Ecosystem, Package};
use super::purl::purl;
use super::scan::Scan;

/// A description may be as long as a readme is.
const METADATA_BYTES_MAX: u64 = 4 << 20;

/// Whether a path is that of a distribution's metadata.
pub(super) fn is_metadata(path: &TreePath) -> bool {
    let (name, folder) = (path.name(), path.parent().unwrap_or_default());
    match name {
        b"METADATA" => folder.name().ends_with(b".dist-info"),
        b"PKG-INFO" => folder.name().ends_with(b".egg-info"),
        _ => name.ends_with(b".egg-info"),
    }
}

/// Reads it.
pub(super) fn read(scan: &mut Scan<'_>, path: &TreePath) -> Result<(), ReadError> {
    let Some(bytes) = scan.read(path, METADATA_BYTES_MAX)? else { return Ok(()) };
    match parse(&String::from_utf8_lossy(&bytes)) {
        Some(package) => scan.add(path, package),
        None => scan.omit(path, "it names no Python distribution"),
    }
    Ok(())
}

fn parse(text: &str) -> Option<Package> {
    let headers = || text.lines().take_while(|line| !line.trim().is_empty());
    let header = |wanted: &str| {
        let value = headers().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        });
        value.filter(|value| !value.is_empty() && *value != "UNKNOWN")
    };
    let (name, version) = (header("Name")?, header("Version")?);
    let url = purl("pypi", "", &name.to_ascii_lowercase().replace('_', "-"), version, &[]);
    let licence = header("License-Expression").or_else(|| header("License"));
    let mut package = Package::new(Ecosystem::Python, name, version, Some(url));
    package.licence = licence.and_then(Licence::of_expression);
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_are_read_and_the_description_is_not() {
        let text = "Metadata-Version: 2.1\nName: Flask_Login\nVersion: 0.6.3\nLicense: MIT\n\nName: other\n";
        let package = parse(text).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("Flask_Login", "0.6.3"));
        assert_eq!(package.purl.unwrap(), "pkg:pypi/flask-login@0.6.3");
        assert_eq!(package.licence.unwrap().expression, "MIT");
        for bad in ["", "Name: x\n", "Version: 1\n", "Name: UNKNOWN\nVersion: 1\n", "\nName: x\nVersion: 1\n"]
        {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_known_by_its_folder() {
        let is = |path: &str| is_metadata(&TreePath::parse(path).unwrap());
        assert!(is("usr/lib/python3/dist-packages/six-1.16.0.egg-info"));
        assert!(is("usr/lib/python3/dist-packages/six.egg-info/PKG-INFO"));
        assert!(is("a/flask-3.dist-info/METADATA"));
        assert!(!is("a/flask/METADATA") && !is("PKG-INFO"));
    }
}
