//! Signed statements.
//!
//! Source: secure-systems-lab's DSSE 1.0, `protocol.md` and `envelope.md`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::key::{KeyError, PublicKey, SigningKey};
use crate::attest::STATEMENT_TYPE;
use crate::oci::canonical;

#[derive(Deserialize)]
struct Envelope {
    payload: String,
    #[serde(rename = "payloadType")]
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

/// Signs an in-toto statement, and returns the envelope.
pub(super) fn seal(statement: &[u8], key: &SigningKey) -> Result<Vec<u8>, KeyError> {
    let signature = key.sign(&encoding(STATEMENT_TYPE, statement))?;
    let envelope = json!({
        "payload": STANDARD.encode(statement),
        "payloadType": STATEMENT_TYPE,
        // A hint that nobody needs who has one key; `cosign` leaves it empty, too.
        "signatures": [{ "keyid": "", "sig": STANDARD.encode(signature) }],
    });
    Ok(canonical(&envelope))
}

/// Returns the statement of an envelope that a key signed; none where it did not, or where it is no such envelope.
pub(super) fn open(envelope: &[u8], key: &PublicKey) -> Option<Vec<u8>> {
    let envelope: Envelope = serde_json::from_slice(envelope).ok()?;
    let statement = STANDARD.decode(&envelope.payload).ok()?;
    let message = encoding(&envelope.payload_type, &statement);
    let is_signed = envelope.signatures.iter().any(|signature| {
        STANDARD.decode(&signature.sig).is_ok_and(|signature| key.verifies(&message, &signature))
    });
    (is_signed && envelope.payload_type == STATEMENT_TYPE).then_some(statement)
}

/// What is signed: type and body, each behind its length, so that neither can be taken for a part of the other.
fn encoding(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len());
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::super::key::{KeyKind, generate};
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        assert_eq!(
            encoding("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    /// Key and signature of the specification's own vector (`protocol.md`, "Test Vectors"), whose r and s are in DER here, as `cosign`
    /// and Go's library have them.
    #[test]
    fn the_specifications_own_signature_is_one_of_our_encoding() {
        let key = PublicKey::from_pem(
            "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEZ805D3eqNZywjCI19lInBJOp7YMr\n\
             CrzAH3CVTAOQ0jgMeCvVTiaRJaRPRDOv8UMs6U4SvKc6pnrIDOoSYI3fdA==\n-----END PUBLIC KEY-----\n",
        );
        let signature = STANDARD
            .decode("MEQCIANyarEBrVbCdjtsaqyOSHJ14qeRk6CdxfhZ2fjvPEo7AiBR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
            .unwrap();
        let key = key.unwrap();
        assert!(key.verifies(&encoding("http://example.com/HelloWorld", b"hello world"), &signature));
        assert!(!key.verifies(&encoding("http://example.com/HelloWorl", b"hello world"), &signature));
    }

    #[test]
    fn an_envelope_opens_for_its_own_key_and_only_unchanged() {
        let key = |kind| SigningKey::from_pem(&generate(kind).unwrap()).unwrap();
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let (own, other) = (key(kind), key(kind));
            let envelope = seal(b"{\"a\":1}", &own).unwrap();
            assert_eq!(open(&envelope, &own.public()).unwrap(), b"{\"a\":1}");
            assert_eq!(open(&envelope, &other.public()), None);
            let text = String::from_utf8(envelope).unwrap();
            let forged = text.replace(&STANDARD.encode("{\"a\":1}"), &STANDARD.encode("{\"a\":2}"));
            assert_ne!(forged, text);
            assert_eq!(open(forged.as_bytes(), &own.public()), None);
            let retyped = text.replace("vnd.in-toto+json", "vnd.other+json");
            assert_eq!(open(retyped.as_bytes(), &own.public()), None);
        }
        assert_eq!(open(b"{}", &key(KeyKind::Ed25519).public()), None);
    }
}
