//! What a request says, mutated: one line each for path, query, range, chunk and credentials.

use ::fuzz::Target;

use super::blobs::{Chunk, Range};
use super::htpasswd;
use super::route::{Endpoint, Query};

#[test]
fn requests() {
    let words =
        ["/v2/", "/blobs/", "/manifests/", "/uploads/", "/tags/list", "/referrers/", "%2f", "%2e%2e", "%00"];
    let more = [
        "sha256:", "sha512:", "bytes=", "-", "Basic ", "mount=", "from=", "n=", "last=", "$2y$05$", ":", "\n",
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "requests").words(&words).words(&more).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let mut said = String::new();
        for line in text.lines().take(20) {
            let endpoint = Endpoint::find(line).map(|endpoint| endpoint.methods());
            let query = Query::parse(Some(line));
            let count = query.count(1000);
            assert!(!matches!(count, Ok(count) if count > 1000));
            for size in [0, 1, 1000, u64::MAX] {
                if let Range::Part { first, last } = Range::parse(line, size) {
                    assert!(first <= last && last < size, "{first}-{last} of {size}");
                }
            }
            let chunk = Chunk::parse(line).is_ok();
            let user = htpasswd::basic(line).is_some();
            said += &format!("{endpoint:?} {} {chunk} {user} ", count.is_ok());
        }
        format!("{:?} {said}", htpasswd::parse(bytes).map(|users| users.len()))
    });
}
