//! `EXPOSE`.

/// Reads `80`, `80/udp`, `8000-8010/tcp` or `HOST:80`, and returns each port with its protocol.
pub(super) fn read(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("`{}` is no port, such as 8080 or 53/udp", text.escape_debug());
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    // Only the last is the image's; what comes before is how a host would publish it.
    let own = numbers.rsplit(':').next().unwrap_or(numbers);
    let (low, high) = own.split_once('-').unwrap_or((own, own));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0).ok_or_else(wrong);
    let (low, high) = (number(low)?, number(high)?);
    if low > high {
        return Err(wrong());
    }
    Ok((low..=high).map(|number| format!("{number}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_ranges_and_protocols() {
        assert_eq!(read("80").unwrap(), ["80/tcp"]);
        assert_eq!(read("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(read("8080:80").unwrap(), ["80/tcp"]);
        assert_eq!(read("8000-8002").unwrap(), ["8000/tcp", "8001/tcp", "8002/tcp"]);
        for wrong in ["", "0", "70000", "http", "80/icmp", "9-8", "80/"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
