//! What a registry's answers and Docker's credential file are read with.

use super::challenge::Challenge;
use super::credentials;
use super::reference::ImageReference;

/// Reads bytes as each of them, and says what became of it.
pub(crate) fn read(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let challenge = Challenge::parse(&text).is_some();
    let reference =
        text.parse::<ImageReference>().map(|reference| reference.to_string().parse::<ImageReference>());
    assert!(!matches!(reference, Ok(Err(_))), "what is shown of a name is a name");
    let pairs = credentials::pairs(bytes);
    format!("{challenge} {} {pairs:?}", reference.is_ok())
}
