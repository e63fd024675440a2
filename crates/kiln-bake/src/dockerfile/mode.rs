//! `--chmod`: permission bits as a number, or as what is to change of them.

/// What becomes of permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModeChange {
    /// They are these.
    Set(u16),
    /// They change step by step, as chmod(1) does.
    Symbolic(Vec<Clause>),
}

/// One of `u+x`, `go-w`, `a=rX`, `g=u`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Which of user, group and others, as a mask of nine bits.
    who: u16,
    how: u8,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Bits of one of the three, whether `X` is among them, and the bits beyond the nine.
    Bits { bits: u16, if_executable: bool, special: u16 },
    /// The bits of another of the three: by how much theirs are shifted.
    Of(u16),
}

impl ModeChange {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no mode, such as 0755 or u=rwX,go=rX", text.escape_debug());
        if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
            let mode = u16::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Set).ok_or_else(wrong);
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let at = part.find(['+', '-', '=']).ok_or_else(wrong)?;
            let who = who(&part[..at]).ok_or_else(wrong)?;
            let mut rest = &part[at..];
            while let Some(how) = rest.bytes().next() {
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
                clauses.push(Clause { who, how, what: what(&rest[1..end]).ok_or_else(wrong)? });
                rest = &rest[end..];
            }
        }
        Ok(Self::Symbolic(clauses))
    }

    /// Returns the bits that come of these.
    pub(crate) fn apply(&self, mode: u16, is_folder: bool) -> u16 {
        let clauses = match self {
            Self::Set(mode) => return *mode,
            Self::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(mode, |mode, clause| clause.apply(mode, is_folder))
    }
}

impl Clause {
    fn apply(&self, mode: u16, is_folder: bool) -> u16 {
        let (bits, special) = match self.what {
            What::Of(shift) => ((mode >> shift) & 7, 0),
            What::Bits { bits, if_executable, special } => {
                let x = if_executable && (is_folder || mode & 0o111 != 0);
                (bits | u16::from(x), special)
            }
        };
        let mut mask = (bits | bits << 3 | bits << 6) & self.who;
        // setuid is the user's, setgid the group's; the sticky bit is nobody's.
        mask |= special & 0o1000;
        mask |= if self.who & 0o700 != 0 { special & 0o4000 } else { 0 };
        mask |= if self.who & 0o070 != 0 { special & 0o2000 } else { 0 };
        match self.how {
            b'+' => mode | mask,
            b'-' => mode & !mask,
            _ => mode & !self.who | mask,
        }
    }
}

fn who(text: &str) -> Option<u16> {
    if text.is_empty() {
        return Some(0o777);
    }
    text.bytes().try_fold(0, |mask, byte| match byte {
        b'u' => Some(mask | 0o700),
        b'g' => Some(mask | 0o070),
        b'o' => Some(mask | 0o007),
        b'a' => Some(0o777),
        _ => None,
    })
}

fn what(text: &str) -> Option<What> {
    match text {
        "u" => return Some(What::Of(6)),
        "g" => return Some(What::Of(3)),
        "o" => return Some(What::Of(0)),
        _ => {}
    }
    let (mut bits, mut if_executable, mut special) = (0, false, 0);
    for byte in text.bytes() {
        match byte {
            b'r' => bits |= 4,
            b'w' => bits |= 2,
            b'x' => bits |= 1,
            b'X' => if_executable = true,
            b's' => special |= 0o6000,
            b't' => special |= 0o1000,
            _ => return None,
        }
    }
    Some(What::Bits { bits, if_executable, special })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        let of = |text: &str, mode, is_folder| ModeChange::parse(text).unwrap().apply(mode, is_folder);
        for (text, before, is_folder, after) in [
            ("755", 0o600, false, 0o755),
            ("04711", 0o600, false, 0o4711),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("go-rwx", 0o755, false, 0o700),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o700, false, 0o555),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("g=u", 0o640, false, 0o660),
            ("u+s,g+s", 0o755, false, 0o6755),
            ("u=rw+x", 0o000, false, 0o700),
            ("+t", 0o777, true, 0o1777),
        ] {
            assert_eq!(of(text, before, is_folder), after, "{text} on {before:o}");
        }
        for wrong in ["", "rwx", "888", "10000", "u+y", "x=r", "u+r,"] {
            assert!(ModeChange::parse(wrong).is_err(), "{wrong}");
        }
    }
}
