//! What a Dockerfile may know of the machine: its platform, and nothing else.

use crate::debian::ARCH;

/// ARGs that every command has without declaring them, where the stack gives them.
pub(super) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Returns the value of an ARG that is there without a default.
pub(super) fn value(name: &str) -> Option<&'static str> {
    match name {
        "TARGETPLATFORM" | "BUILDPLATFORM" => {
            Some(if ARCH == "arm64" { "linux/arm64" } else { "linux/amd64" })
        }
        "TARGETOS" | "BUILDOS" => Some("linux"),
        "TARGETARCH" | "BUILDARCH" => Some(ARCH),
        "TARGETVARIANT" | "BUILDVARIANT" => Some(""),
        _ => None,
    }
}

/// Checks that a platform is this machine's.
pub(super) fn check(platform: &str) -> Result<(), String> {
    let lower = platform.to_ascii_lowercase();
    let mut parts = lower.split('/');
    let os = parts.next().unwrap_or_default();
    let arch = match parts.next() {
        None | Some("") => ARCH,
        Some("x86_64" | "x86-64") => "amd64",
        Some("aarch64") => "arm64",
        Some(other) => other,
    };
    let variant = parts.next().unwrap_or_default();
    let plain =
        variant.is_empty() || arch == "arm64" && variant == "v8" || arch == "amd64" && variant == "v1";
    let is_ours = os == "linux" && arch == ARCH && plain && parts.next().is_none();
    // An OS alone means its default architecture, an architecture alone Linux.
    let alone = !lower.contains('/') && (os == ARCH || os == "local");
    if is_ours || alone || platform.is_empty() {
        return Ok(());
    }
    Err(format!("the platform `{}` is not this machine's, which is linux/{ARCH}", platform.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_platform_is_taken() {
        for ours in ["linux", &format!("linux/{ARCH}"), &format!("LINUX/{ARCH}"), ARCH, ""] {
            assert_eq!(check(ours), Ok(()), "{ours}");
        }
        for other in ["windows/amd64", "linux/s390x", "linux/arm/v7", "linux/amd64/v1/x", "linux/amd64/v3"] {
            assert!(check(other).is_err(), "{other}");
        }
    }
}
