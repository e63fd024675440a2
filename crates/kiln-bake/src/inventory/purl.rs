//! Package URLs: one spelling for the packages of every ecosystem.
//!
//! Source: ECMA-427, "Package-URL".

/// Spells a package's URL; what is empty is left out. The namespace may have several segments.
pub(crate) fn purl(
    kind: &str,
    namespace: &str,
    name: &str,
    version: &str,
    qualifiers: &[(&str, &str)],
) -> String {
    let mut text = format!("pkg:{kind}/");
    for segment in namespace.split('/').filter(|segment| !segment.is_empty()) {
        encode(segment, &mut text);
        text.push('/');
    }
    encode(name, &mut text);
    if !version.is_empty() {
        text.push('@');
        encode(version, &mut text);
    }
    let mut sign = '?';
    for (key, value) in qualifiers.iter().filter(|(_, value)| !value.is_empty()) {
        text.push(sign);
        text.push_str(key);
        text.push('=');
        encode(value, &mut text);
        sign = '&';
    }
    text
}

fn encode(part: &str, text: &mut String) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_spelled_as_the_standards_examples_are() {
        let qualifiers = [("arch", "i386"), ("distro", "jessie")];
        assert_eq!(
            purl("deb", "debian", "curl", "7.50.3-1", &qualifiers),
            "pkg:deb/debian/curl@7.50.3-1?arch=i386&distro=jessie"
        );
        assert_eq!(
            purl("npm", "@angular", "animation", "12.3.1", &[]),
            "pkg:npm/%40angular/animation@12.3.1"
        );
        assert_eq!(
            purl("golang", "google.golang.org", "genproto", "abcdedf", &[]),
            "pkg:golang/google.golang.org/genproto@abcdedf"
        );
        assert_eq!(purl("deb", "", "a+b", "1:2~3+b1", &[("arch", "")]), "pkg:deb/a%2Bb@1:2~3%2Bb1");
    }
}
