//! What a question to somebody else goes with. The value of a secret is never here: only its name is.

use kiln_model::SecretName;
use kiln_model::access::{Access, Credentials};
use serde::{Deserialize, Serialize};

use super::Text;

#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccessWire {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credentials: Option<CredentialsWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roots: Option<String>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum CredentialsWire {
    Bearer(Text<SecretName>),
    Basic { user: String, password: Text<SecretName> },
}

impl AccessWire {
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Access> for AccessWire {
    fn from(Access { credentials, roots }: &Access) -> Self {
        let credentials = credentials.as_ref().map(|credentials| match credentials {
            Credentials::Bearer(secret) => CredentialsWire::Bearer(Text(secret.clone())),
            Credentials::Basic { user, password } => {
                CredentialsWire::Basic { user: user.clone(), password: Text(password.clone()) }
            }
        });
        Self { credentials, roots: roots.as_deref().map(str::to_owned) }
    }
}

impl From<AccessWire> for Access {
    fn from(AccessWire { credentials, roots }: AccessWire) -> Self {
        let credentials = credentials.map(|credentials| match credentials {
            CredentialsWire::Bearer(Text(secret)) => Credentials::Bearer(secret),
            CredentialsWire::Basic { user, password: Text(password) } => {
                Credentials::Basic { user, password }
            }
        });
        Self { credentials, roots: roots.map(Into::into) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_access_are_stable() {
        let secret = || SecretName::new("token").unwrap();
        let roots = Some("-----BEGIN CERTIFICATE-----".into());
        let basic = Credentials::Basic { user: "kiln".into(), password: secret() };
        for (access, golden) in [
            (Access::default(), "{}"),
            (
                Access { credentials: Some(Credentials::Bearer(secret())), roots },
                r#"{"credentials":{"bearer":"token"},"roots":"-----BEGIN CERTIFICATE-----"}"#,
            ),
            (
                Access { credentials: Some(basic), roots: None },
                r#"{"credentials":{"basic":{"user":"kiln","password":"token"}}}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&AccessWire::from(&access)).unwrap(), golden);
            assert_eq!(Access::from(serde_json::from_str::<AccessWire>(golden).unwrap()), access);
        }
    }
}
