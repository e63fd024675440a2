//! What a registry asks for with a 401: RFC 9110, section 11.6.1, and the token protocol of Docker's registries.

/// A challenge of a `WWW-Authenticate` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user and a password with each request.
    Basic,
    /// A token from elsewhere.
    Bearer {
        /// Where tokens are.
        realm: String,
        /// For whom they are.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads one header; none where it asks for something else.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut found = (None, None, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => found.0 = Some(value),
                "service" => found.1 = Some(value),
                "scope" => found.2 = Some(value),
                _ => {}
            }
        }
        Some(Self::Bearer { realm: found.0?, service: found.1, scope: found.2 })
    }
}

/// Splits `a="b, c",d=e`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_start_matches([',', ' ']).trim().to_owned();
        let value = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut characters = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, character)) = characters.next() {
                    match character {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(characters.next().map(|(_, next)| next)),
                        other => value.push(other),
                    }
                }
                rest = &quoted[end..];
                value
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                rest = &after[end..];
                after[..end].trim().to_owned()
            }
        };
        found.push((name, value));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let hub = r#"Bearer realm="https://auth.example.org/token",service="r.example.org",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example.org/token".into(),
            service: Some("r.example.org".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::parse(hub), Some(expected));
        assert_eq!(Challenge::parse("basic realm=\"x\", charset=\"UTF-8\""), Some(Challenge::Basic));
        let bare = Challenge::Bearer { realm: "r".into(), service: None, scope: None };
        assert_eq!(Challenge::parse("BEARER realm=r, x=\"a\\\"b\""), Some(bare));
        for none in ["", "Digest realm=\"x\"", "Bearer", "Bearer service=x"] {
            assert_eq!(Challenge::parse(none), None, "{none}");
        }
    }
}
