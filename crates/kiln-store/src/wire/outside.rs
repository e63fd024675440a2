//! Metrics that others measure, and what they came to. Numbers are text, so that each is the same after any reader.

use kiln_model::Millis;
use kiln_model::outside::{Comparison, Condition, Finding, Number, OutsideMetric};
use serde::{Deserialize, Serialize};

use super::access::AccessWire;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutsideMetricWire {
    name: String,
    prometheus: String,
    #[serde(default, skip_serializing_if = "AccessWire::is_none")]
    access: AccessWire,
    query: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    success: Option<ConditionWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<ConditionWire>,
    interval_ms: u64,
    count: u32,
    failure_limit: u32,
    inconclusive_limit: u32,
    error_limit: u32,
    dry_run: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionWire {
    comparison: ComparisonWire,
    with: NumberWire,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct NumberWire(Number);

#[derive(Clone, Copy, Serialize, Deserialize)]
enum ComparisonWire {
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "==")]
    Equal,
    #[serde(rename = "!=")]
    Other,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FindingWire {
    Passed,
    Failed,
    Unclear,
    Error,
}

impl From<&OutsideMetric> for OutsideMetricWire {
    fn from(metric: &OutsideMetric) -> Self {
        Self {
            name: metric.name.clone(),
            prometheus: metric.prometheus.clone(),
            access: (&metric.access).into(),
            query: metric.query.clone(),
            success: metric.success.map(ConditionWire::from),
            failure: metric.failure.map(ConditionWire::from),
            interval_ms: metric.interval.0,
            count: metric.count,
            failure_limit: metric.failure_limit,
            inconclusive_limit: metric.inconclusive_limit,
            error_limit: metric.error_limit,
            dry_run: metric.dry_run,
        }
    }
}

impl From<OutsideMetricWire> for OutsideMetric {
    fn from(wire: OutsideMetricWire) -> Self {
        Self {
            name: wire.name,
            prometheus: wire.prometheus,
            access: wire.access.into(),
            query: wire.query,
            success: wire.success.map(Condition::from),
            failure: wire.failure.map(Condition::from),
            interval: Millis(wire.interval_ms),
            count: wire.count,
            failure_limit: wire.failure_limit,
            inconclusive_limit: wire.inconclusive_limit,
            error_limit: wire.error_limit,
            dry_run: wire.dry_run,
        }
    }
}

impl From<Condition> for ConditionWire {
    fn from(condition: Condition) -> Self {
        let comparison = match condition.comparison {
            Comparison::Less => ComparisonWire::Less,
            Comparison::AtMost => ComparisonWire::AtMost,
            Comparison::Greater => ComparisonWire::Greater,
            Comparison::AtLeast => ComparisonWire::AtLeast,
            Comparison::Equal => ComparisonWire::Equal,
            Comparison::Other => ComparisonWire::Other,
        };
        Self { comparison, with: NumberWire(condition.with) }
    }
}

impl From<ConditionWire> for Condition {
    fn from(wire: ConditionWire) -> Self {
        let comparison = match wire.comparison {
            ComparisonWire::Less => Comparison::Less,
            ComparisonWire::AtMost => Comparison::AtMost,
            ComparisonWire::Greater => Comparison::Greater,
            ComparisonWire::AtLeast => Comparison::AtLeast,
            ComparisonWire::Equal => Comparison::Equal,
            ComparisonWire::Other => Comparison::Other,
        };
        Self { comparison, with: wire.with.0 }
    }
}

impl TryFrom<String> for NumberWire {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(|number| Self(Number(number))).map_err(|_| format!("`{text}` is no number"))
    }
}

impl From<NumberWire> for String {
    fn from(number: NumberWire) -> Self {
        // The shortest text that is read as the same number.
        number.0.to_string()
    }
}

impl From<Finding> for FindingWire {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Passed => Self::Passed,
            Finding::Failed => Self::Failed,
            Finding::Unclear => Self::Unclear,
            Finding::Error => Self::Error,
        }
    }
}

impl From<FindingWire> for Finding {
    fn from(wire: FindingWire) -> Self {
        match wire {
            FindingWire::Passed => Self::Passed,
            FindingWire::Failed => Self::Failed,
            FindingWire::Unclear => Self::Unclear,
            FindingWire::Error => Self::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::access::Access;

    use super::*;

    fn metric(comparison: Comparison, with: f64) -> OutsideMetric {
        OutsideMetric {
            name: "queue".into(),
            prometheus: "http://127.0.0.1:9090".into(),
            access: Access::default(),
            query: "up".into(),
            success: Some(Condition { comparison, with: Number(with) }),
            failure: None,
            interval: Millis(30_000),
            count: 5,
            failure_limit: 1,
            inconclusive_limit: 0,
            error_limit: 4,
            dry_run: true,
        }
    }

    #[test]
    fn the_bytes_of_a_metric_are_stable() {
        let golden = concat!(
            r#"{"name":"queue","prometheus":"http://127.0.0.1:9090","query":"up","#,
            r#""success":{"comparison":"<=","with":"0.05"},"interval_ms":30000,"count":5,"failure_limit":1,"#,
            r#""inconclusive_limit":0,"error_limit":4,"dry_run":true}"#,
        );
        let stored = metric(Comparison::AtMost, 0.05);
        assert_eq!(serde_json::to_string(&OutsideMetricWire::from(&stored)).unwrap(), golden);
        assert_eq!(OutsideMetric::from(serde_json::from_str::<OutsideMetricWire>(golden).unwrap()), stored);
        assert!(serde_json::from_str::<OutsideMetricWire>(&golden.replace("0.05", "few")).is_err());
    }

    #[test]
    fn every_comparison_and_number_reads_back() {
        use Comparison::{AtLeast, AtMost, Equal, Greater, Less, Other};
        for comparison in [Less, AtMost, Greater, AtLeast, Equal, Other] {
            for number in [0.1 + 0.2, -0.0, 1e300, f64::MIN_POSITIVE] {
                let stored = metric(comparison, number);
                let text = serde_json::to_string(&OutsideMetricWire::from(&stored)).unwrap();
                assert_eq!(
                    OutsideMetric::from(serde_json::from_str::<OutsideMetricWire>(&text).unwrap()),
                    stored
                );
            }
        }
    }
}
