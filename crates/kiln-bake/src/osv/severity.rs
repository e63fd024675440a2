//! How bad a vulnerability is.
//!
//! Source: the specifications of CVSS 3.1, section 7, and of CVSS 2, section 3.2.1, by FIRST. The score of CVSS 4 comes from a table that is not kept here.

use std::collections::BTreeMap;

use kiln_model::recipe::Severity;

/// Reads a word of a database: GitHub's, or the urgency that Debian gives.
pub(super) fn of_word(word: &str) -> Option<Severity> {
    match word.to_ascii_lowercase().trim_end_matches('*') {
        "unimportant" | "negligible" | "none" => Some(Severity::Negligible),
        "low" => Some(Severity::Low),
        "moderate" | "medium" => Some(Severity::Medium),
        "high" => Some(Severity::High),
        "critical" => Some(Severity::Critical),
        _ => None,
    }
}

/// Reads a vector of CVSS 3 or 2.
pub(super) fn of_vector(vector: &str) -> Option<Severity> {
    let metrics: BTreeMap<&str, &str> = vector.split('/').filter_map(|part| part.split_once(':')).collect();
    let score = match metrics.get("CVSS") {
        Some(version) if version.starts_with("3.") => version_3(&metrics)?,
        Some(_) => return None,
        None => version_2(&metrics)?,
    };
    Some(match score {
        ..0.1 => Severity::Negligible,
        ..4.0 => Severity::Low,
        ..7.0 => Severity::Medium,
        ..9.0 => Severity::High,
        _ => Severity::Critical,
    })
}

/// Returns the weight of a metric's value.
fn weight(metrics: &BTreeMap<&str, &str>, metric: &str, weights: &[(&str, f64)]) -> Option<f64> {
    let value = metrics.get(metric)?;
    weights.iter().find(|(name, _)| name == value).map(|(_, weight)| *weight)
}

fn version_3(metrics: &BTreeMap<&str, &str>) -> Option<f64> {
    let changed = match *metrics.get("S")? {
        "C" => true,
        "U" => false,
        _ => return None,
    };
    let impact = [("H", 0.56), ("L", 0.22), ("N", 0.0)];
    let of = |metric| weight(metrics, metric, &impact);
    let iss = 1.0 - (1.0 - of("C")?) * (1.0 - of("I")?) * (1.0 - of("A")?);
    let impact = if changed { 7.52 * (iss - 0.029) - 3.25 * (iss - 0.02).powi(15) } else { 6.42 * iss };
    let rights = if changed {
        [("N", 0.85), ("L", 0.68), ("H", 0.5)]
    } else {
        [("N", 0.85), ("L", 0.62), ("H", 0.27)]
    };
    let exploitability = 8.22
        * weight(metrics, "AV", &[("N", 0.85), ("A", 0.62), ("L", 0.55), ("P", 0.2)])?
        * weight(metrics, "AC", &[("L", 0.77), ("H", 0.44)])?
        * weight(metrics, "PR", &rights)?
        * weight(metrics, "UI", &[("N", 0.85), ("R", 0.62)])?;
    if impact <= 0.0 {
        return Some(0.0);
    }
    let sum = impact + exploitability;
    Some(round_up(if changed { 1.08 * sum } else { sum }.min(10.0)))
}

/// Up to one decimal, in integers, so that 4.0000001 does not become 4.1 (CVSS 3.1, appendix A).
fn round_up(score: f64) -> f64 {
    let parts = (score * 100_000.0).round() as u64;
    let tenths = if parts.is_multiple_of(10_000) { parts / 10_000 } else { parts / 10_000 + 1 };
    tenths as f64 / 10.0
}

fn version_2(metrics: &BTreeMap<&str, &str>) -> Option<f64> {
    let impact = [("N", 0.0), ("P", 0.275), ("C", 0.66)];
    let of = |metric| weight(metrics, metric, &impact);
    let impact = 10.41 * (1.0 - (1.0 - of("C")?) * (1.0 - of("I")?) * (1.0 - of("A")?));
    let exploitability = 20.0
        * weight(metrics, "AV", &[("L", 0.395), ("A", 0.646), ("N", 1.0)])?
        * weight(metrics, "AC", &[("H", 0.35), ("M", 0.61), ("L", 0.71)])?
        * weight(metrics, "Au", &[("M", 0.45), ("S", 0.56), ("N", 0.704)])?;
    let factor = if impact == 0.0 { 0.0 } else { 1.176 };
    Some(((0.6 * impact + 0.4 * exploitability - 1.5) * factor * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_those_of_the_published_examples() {
        let score = |vector: &str| {
            let metrics = vector.split('/').filter_map(|part| part.split_once(':')).collect();
            if vector.starts_with("CVSS:3") { version_3(&metrics) } else { version_2(&metrics) }
        };
        for (vector, expected) in [
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H", 9.8),
            ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
            ("CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:L/I:L/A:N", 6.1),
            ("CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H", 7.8),
            ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4),
            ("CVSS:3.1/AV:N/AC:H/PR:N/UI:N/S:U/C:H/I:N/A:N", 5.9),
            ("CVSS:3.1/AV:P/AC:H/PR:H/UI:R/S:U/C:N/I:N/A:N", 0.0),
            ("AV:N/AC:L/Au:N/C:N/I:N/A:C", 7.8),
            ("AV:N/AC:L/Au:N/C:C/I:C/A:C", 10.0),
            ("AV:L/AC:H/Au:N/C:C/I:C/A:C", 6.2),
        ] {
            assert_eq!(score(vector), Some(expected), "{vector}");
        }
    }

    #[test]
    fn what_can_not_be_scored_is_unknown() {
        for vector in
            ["", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H", "CVSS:3.1/AV:N", "CVSS:3.1/S:X", "7.5"]
        {
            assert_eq!(of_vector(vector), None, "{vector}");
        }
        assert_eq!(of_word("MODERATE"), Some(Severity::Medium));
        assert_eq!(of_word("not yet assigned"), None);
    }
}
