//! Quantities in text: `"1m30s"`, `"128MiB"`, `"5%"`.

use kiln_model::{ByteSize, Millis, Weight};

/// Reads a duration: whole or decimal numbers with `ms`, `s`, `m`, `h` or `d`, one after the other.
///
/// # Errors
/// In words.
pub fn parse_millis(text: &str) -> Result<Millis, String> {
    match parse_signed_millis(text)? {
        millis @ 0.. => Ok(Millis(millis as u64)),
        _ => Err(format!("\"{text}\" is negative")),
    }
}

/// As [`parse_millis`], with a sign.
pub(crate) fn parse_signed_millis(text: &str) -> Result<i64, String> {
    let fail = || format!("\"{}\" is no duration like \"5s\", \"1m30s\" or \"500ms\"", clip(text));
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return Err(fail());
    }
    while !rest.is_empty() && rest != "0" {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
        let number: f64 = rest[..digits].parse().map_err(|_| fail())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(fail()),
        };
        total += number * unit;
        rest = &rest[letters..];
    }
    // Ten thousand years: beyond it sums of times would overflow somewhere.
    if total > 3.2e14 {
        return Err(format!("\"{}\" is too long", clip(text)));
    }
    let total = total.round() as i64;
    Ok(if negative { -total } else { total })
}

/// Reads a size: a whole or decimal number with `B`, `KB`, `MB`, `GB`, `TB` (thousands) or `KiB`, `MiB`, `GiB`, `TiB`.
///
/// # Errors
/// In words.
pub fn parse_size(text: &str) -> Result<ByteSize, String> {
    let fail = || format!("\"{}\" is no size like \"128MiB\", \"1GiB\" or \"64KB\"", clip(text));
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let number: f64 = text[..digits].parse().map_err(|_| fail())?;
    let unit: f64 = match text[digits..].trim_start() {
        "B" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        "K" | "M" | "G" | "T" | "k" | "m" | "g" => {
            return Err(format!("\"{}\" leaves open what it counts; write MiB or MB", clip(text)));
        }
        _ => return Err(fail()),
    };
    let bytes = number * unit;
    if bytes > 1e18 {
        Err(format!("\"{}\" is too large", clip(text)))
    } else {
        Ok(ByteSize(bytes.round() as u64))
    }
}

/// Reads a share of traffic: `"5%"` or `"0.5%"`.
///
/// # Errors
/// In words.
pub fn parse_weight(text: &str) -> Result<Weight, String> {
    let fail = || format!("\"{}\" is no share like \"5%\", between \"0%\" and \"100%\"", clip(text));
    let number = text.strip_suffix('%').ok_or_else(fail)?;
    if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(fail());
    }
    let percent: f64 = number.parse().map_err(|_| fail())?;
    let per_mille = (percent * 10.0).round();
    if (per_mille - percent * 10.0).abs() > 1e-9 {
        return Err(format!("\"{}\" is finer than a tenth of a percent", clip(text)));
    }
    Weight::new(per_mille.min(2000.0) as u16).ok_or_else(fail)
}

fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up() {
        assert_eq!(parse_millis("1m30s"), Ok(Millis(90_000)));
        assert_eq!(parse_millis("500ms"), Ok(Millis(500)));
        assert_eq!(parse_millis("1.5h"), Ok(Millis(5_400_000)));
        assert_eq!(parse_millis("0"), Ok(Millis(0)));
        for bad in ["", "5", "s", "5 s", "5x", "-1s", "1..2s", "9e99s", "99999999999999d"] {
            assert!(parse_millis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_say_what_they_count() {
        assert_eq!(parse_size("128MiB"), Ok(ByteSize::from_mib(128)));
        assert_eq!(parse_size("64KB"), Ok(ByteSize(64_000)));
        assert_eq!(parse_size("1.5 GiB"), Ok(ByteSize(1_610_612_736)));
        for bad in ["", "128", "MiB", "1M", "1PiB", "-1MiB", "99999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn weights_are_tenths_of_a_percent() {
        assert_eq!(parse_weight("5%").map(Weight::per_mille), Ok(50));
        assert_eq!(parse_weight("0.5%").map(Weight::per_mille), Ok(5));
        for bad in ["5", "101%", "0.05%", "%", "x%", "-1%", "1e300%"] {
            assert!(parse_weight(bad).is_err(), "{bad}");
        }
    }
}
