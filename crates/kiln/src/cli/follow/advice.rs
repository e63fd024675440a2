//! What to do about the troubles that everybody has once.

/// What the C library, Python, Rust and (in lower case) Go say for EROFS.
const READ_ONLY: &str = "read-only file system";

/// What a failed rollout's reason, or what its instances printed, calls for; none where nothing is known to help.
pub(crate) fn about(reason: &str, words: &[String]) -> Option<&'static str> {
    if reason.contains("in use by another process") {
        return Some("free the port, or give the route another `listen`; `ss -ltnp` shows who has it");
    }
    if reason.contains("used more memory than its limit") {
        return Some("give it more `memory` in its `resources`");
    }
    words.iter().any(|text| is_read_only(text)).then_some(SCRATCH)
}

/// What a program that writes to its root is told.
pub(crate) const SCRATCH: &str = "an instance's root is read-only: name the folder in `scratch` to write there in memory, or in a `volume` to keep \
     what is written";

/// Whether a line tells of a write that the read-only root refused.
pub(crate) fn is_read_only(line: &str) -> bool {
    line.to_lowercase().contains(READ_ONLY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_troubles_have_an_answer_and_others_have_none() {
        let said = ["web/0 abc printed:\nOSError: [Errno 30] Read-only file system: '/app/x'".to_owned()];
        assert_eq!(about("web/0 exited with code 1", &said), Some(SCRATCH));
        assert_eq!(about("web/0 exited with code 1", &[]), None);
        assert!(
            about("can't listen on 127.0.0.1:80: 127.0.0.1:80 is in use by another process", &said)
                .unwrap()
                .contains("`listen`")
        );
        assert!(
            about("web/0 used more memory than its limit and was ended", &[]).unwrap().contains("`memory`")
        );
        assert!(is_read_only("open /x: read-only file system"));
    }
}
