//! Extended attributes as they follow an inode.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use kiln_model::Digest;

use super::XATTR_HEADER_BYTES;
use super::plan::FormatError;

/// Name prefixes that the format stores as a number, longest first where one begins with another.
const PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// What overlayfs reads from the metadata layer.
const OVERLAY: &[u8] = b"trusted.overlay.";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";

/// Attributes of the image that would mean something to overlayfs are stored with this prefix, which it takes off again.
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";

/// Linux's limit, which the prefix above must not break.
const NAME_BYTES_MAX: usize = 255;

pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Encodes attributes: nothing at all where there are none.
pub(super) fn encode(xattrs: &Xattrs) -> Result<Vec<u8>, FormatError> {
    if xattrs.is_empty() {
        return Ok(Vec::new());
    }
    let mut bytes = vec![0; XATTR_HEADER_BYTES];
    for (name, value) in xattrs {
        let (index, prefix) = PREFIXES
            .into_iter()
            .find(|(_, prefix)| name.starts_with(prefix))
            .ok_or_else(|| FormatError(format!("the attribute {}", String::from_utf8_lossy(name))))?;
        let suffix = &name[prefix.len()..];
        bytes.push(suffix.len() as u8);
        bytes.push(index);
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(suffix);
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Ok(bytes)
}

/// Returns the number in an inode that stands for this many bytes of attributes.
pub(super) fn count(bytes: usize) -> Result<u16, FormatError> {
    match bytes {
        0 => Ok(0),
        length => u16::try_from(1 + (length - XATTR_HEADER_BYTES) / 4)
            .map_err(|_| FormatError("the attributes of one file have more than 256 KiB".into())),
    }
}

/// Returns how many bytes of attributes the number in an inode stands for.
pub(super) fn bytes_of(count: u16) -> usize {
    match usize::from(count) {
        0 => 0,
        count => XATTR_HEADER_BYTES + (count - 1) * 4,
    }
}

/// Decodes attributes; none where the bytes are not what [`encode`] writes.
pub(super) fn decode(bytes: &[u8]) -> Option<Xattrs> {
    let mut xattrs = Xattrs::new();
    let Some(header) = bytes.get(..XATTR_HEADER_BYTES) else { return bytes.is_empty().then_some(xattrs) };
    if header.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut rest = &bytes[XATTR_HEADER_BYTES..];
    while !rest.is_empty() {
        let name_bytes = usize::from(*rest.first()?);
        let (_, prefix) = PREFIXES.into_iter().find(|(index, _)| Some(index) == rest.get(1))?;
        let value_bytes = usize::from(u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?));
        let suffix = rest.get(4..4 + name_bytes)?;
        let value = rest.get(4 + name_bytes..4 + name_bytes + value_bytes)?;
        xattrs.insert([prefix, suffix].concat(), value.to_vec());
        rest = rest.get((4 + name_bytes + value_bytes).next_multiple_of(4)..)?;
    }
    Some(xattrs)
}

/// What most files have: no attribute of their own, and what [`redirect`] adds, up to where its digest stands.
static REDIRECT_ALONE: LazyLock<(Vec<u8>, usize)> = LazyLock::new(|| {
    let mut xattrs = Xattrs::new();
    redirect(&mut xattrs, &Digest::new([0; 32]));
    let bytes = encode(&xattrs).expect("two short attributes of overlayfs can be stored");
    // The path of an object is the last of all: a slash, two digits, a slash, and 64 digits.
    let at = bytes.len() - (1 + 2 + 1 + 64);
    (bytes, at)
});

/// How many bytes [`encode_redirect`] adds.
pub(super) fn redirect_bytes() -> usize {
    REDIRECT_ALONE.0.len()
}

/// Adds what [`redirect`] to nothing else and [`encode`] come to, without the detour: a tree has tens of thousands of such files.
pub(super) fn encode_redirect(object: &Digest, out: &mut Vec<u8>) {
    let (alone, at) = &*REDIRECT_ALONE;
    let (start, digits) = (out.len() + at, object.digits());
    out.extend_from_slice(alone);
    out[start + 1..start + 3].copy_from_slice(&digits[..2]);
    out[start + 4..].copy_from_slice(&digits);
}

/// Reads what [`encode_redirect`] wrote; none where the bytes are anything else.
pub(super) fn decode_redirect(bytes: &[u8]) -> Option<Digest> {
    let (alone, at) = &*REDIRECT_ALONE;
    let path = bytes.strip_prefix(&alone[..*at]).filter(|_| bytes.len() == alone.len())?;
    parse_redirect(path)
}

/// Makes attributes of the image safe below an overlay.
pub(super) fn escape(xattrs: &Xattrs) -> Result<Xattrs, FormatError> {
    let escaped = |(name, value): (&Vec<u8>, &Vec<u8>)| {
        let name = match name.strip_prefix(OVERLAY) {
            Some(rest) => [ESCAPED, rest].concat(),
            None => name.clone(),
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(FormatError("an attribute of overlayfs has too long a name".into()));
        }
        Ok((name, value.clone()))
    };
    xattrs.iter().map(escaped).collect()
}

/// Undoes [`escape`] and takes out what [`redirect`] added: the object that a file's data is in.
pub(super) fn unescape(xattrs: Xattrs) -> Option<(Xattrs, Option<Digest>)> {
    let mut plain = Xattrs::new();
    let mut object = None;
    for (name, value) in xattrs {
        if let Some(rest) = name.strip_prefix(ESCAPED) {
            plain.insert([OVERLAY, rest].concat(), value);
        } else if name == REDIRECT {
            object = Some(parse_redirect(&value)?);
        } else if !name.starts_with(OVERLAY) {
            plain.insert(name, value);
        } else if name != METACOPY || !value.is_empty() {
            return None;
        }
    }
    Some((plain, object))
}

/// Adds what makes the overlay take a file's data from an object.
pub(super) fn redirect(xattrs: &mut Xattrs, object: &Digest) {
    let hex = object.hex();
    xattrs.insert(METACOPY.into(), Vec::new());
    xattrs.insert(REDIRECT.into(), format!("/{}/{hex}", &hex[..2]).into());
}

fn parse_redirect(value: &[u8]) -> Option<Digest> {
    let (folder, hex) = value.split_at_checked(4)?;
    let digest = Digest::of_hex(hex)?;
    (folder == [b'/', hex[0], hex[1], b'/']).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_attributes_of_its_own_is_written_and_read_as_any_other() {
        let digest = Digest::new(std::array::from_fn(|index| index as u8 * 7));
        let mut xattrs = Xattrs::new();
        redirect(&mut xattrs, &digest);
        let mut bytes = Vec::new();
        encode_redirect(&digest, &mut bytes);
        assert_eq!((&bytes, bytes.len()), (&encode(&xattrs).unwrap(), redirect_bytes()));
        assert_eq!(decode_redirect(&bytes), Some(digest));
        assert_eq!(unescape(decode(&bytes).unwrap()), Some((Xattrs::new(), Some(digest))));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x80;
            assert_eq!(decode_redirect(&other), None, "{at}");
        }
        assert_eq!(decode_redirect(&bytes[..bytes.len() - 1]), None);
        xattrs.insert(b"user.own".to_vec(), Vec::new());
        assert_eq!(decode_redirect(&encode(&xattrs).unwrap()), None);
    }
}
