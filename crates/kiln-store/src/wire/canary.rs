//! Canaries: how one goes, and what its analyses found.

use std::sync::Arc;

use kiln_model::outside::OutsideMetric;
use kiln_model::rollout::{Estimate, Evidence, Verdict};
use kiln_model::route::Synthetic;
use kiln_model::service::{Analysis, Canary, Gate, Inconclusive, Margin, Metric, MetricKind, Stage};
use kiln_model::{Millis, PortName, ServiceName, Weight};
use serde::{Deserialize, Serialize};

use super::Text;
use super::ask::{AgainWire, AskWire, MethodWire};
use super::audience::AudienceWire;
use super::outside::OutsideMetricWire;
use super::rollout::weight_of;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CanaryWire {
    stages: Vec<StageWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    analysis: Option<AnalysisWire>,
    #[serde(default, skip_serializing_if = "AudienceWire::is_default")]
    audience: AudienceWire,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_surge: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageWire {
    weight: PerMille,
    gates: Vec<GateWire>,
}

/// A weight, which has a range.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub(super) struct PerMille(pub(super) Weight);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum GateWire {
    Hold {
        span_ms: u64,
    },
    Analyse {
        within_ms: u64,
    },
    Approve {
        by: Vec<String>,
        within_ms: u64,
    },
    Run {
        job: Text<ServiceName>,
        within_ms: u64,
    },
    Check {
        job: Text<ServiceName>,
        within_ms: u64,
        #[serde(default, skip_serializing_if = "AgainWire::is_once")]
        again: AgainWire,
    },
    Ask(AskWire),
    Mirror {
        share: PerMille,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        span_ms: Option<u64>,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnalysisWire {
    metrics: Vec<MetricWire>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    outside: Vec<OutsideMetricWire>,
    alpha_ppm: u32,
    inconclusive: InconclusiveWire,
    // Left out where it is none, as it was before there were any: digests stay.
    #[serde(default, skip_serializing_if = "is_none")]
    extensions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    synthetic: Option<SyntheticWire>,
    dry_run: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SyntheticWire {
    #[serde(default, skip_serializing_if = "MethodWire::is_get")]
    method: MethodWire,
    path: String,
    host: String,
    port: Text<PortName>,
    rate: u32,
    count: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InconclusiveWire {
    Stop,
    Continue,
    Ask,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricWire {
    kind: MetricKindWire,
    worse_by: MarginWire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum MetricKindWire {
    ErrorRate,
    ClientErrors,
    Latency { quantile_ppm: u32 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum MarginWire {
    Absolute(u64),
    RelativePpm(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictWire {
    Pass,
    Fail,
    Inconclusive,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvidenceWire {
    metric: MetricKindWire,
    worse_by: MarginWire,
    verdict: VerdictWire,
    baseline: EstimateWire,
    canary: EstimateWire,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EstimateWire {
    samples: u64,
    value: u64,
    low: u64,
    high: u64,
}

impl From<&Canary> for CanaryWire {
    fn from(canary: &Canary) -> Self {
        let stage = |stage: &Stage| StageWire {
            weight: PerMille(stage.weight),
            gates: stage.gates.iter().map(GateWire::from).collect(),
        };
        Self {
            stages: canary.stages.iter().map(stage).collect(),
            analysis: canary.analysis.as_ref().map(AnalysisWire::from),
            audience: (&canary.audience).into(),
            max_surge: canary.max_surge,
        }
    }
}

impl From<CanaryWire> for Canary {
    fn from(wire: CanaryWire) -> Self {
        let stage = |stage: StageWire| {
            let gates = stage.gates.into_iter().map(Gate::from).collect();
            Stage { weight: stage.weight.0, gates }
        };
        Self {
            stages: wire.stages.into_iter().map(stage).collect(),
            analysis: wire.analysis.map(Analysis::from),
            audience: wire.audience.into(),
            max_surge: wire.max_surge,
        }
    }
}

impl TryFrom<u16> for PerMille {
    type Error = String;

    fn try_from(per_mille: u16) -> Result<Self, String> {
        weight_of(per_mille).map(Self)
    }
}

impl From<PerMille> for u16 {
    fn from(weight: PerMille) -> Self {
        weight.0.per_mille()
    }
}

impl From<&Gate> for GateWire {
    fn from(gate: &Gate) -> Self {
        match gate {
            Gate::Hold(span) => Self::Hold { span_ms: span.0 },
            Gate::Analyse(within) => Self::Analyse { within_ms: within.0 },
            Gate::Approve { by, within } => Self::Approve { by: by.clone(), within_ms: within.0 },
            Gate::Run { job, within } => Self::Run { job: Text(job.clone()), within_ms: within.0 },
            Gate::Check { job, within, again } => {
                Self::Check { job: Text(job.clone()), within_ms: within.0, again: (*again).into() }
            }
            Gate::Ask(ask) => Self::Ask(ask.into()),
            Gate::Mirror { share, span } => {
                Self::Mirror { share: PerMille(*share), span_ms: span.map(|span| span.0) }
            }
        }
    }
}

impl From<GateWire> for Gate {
    fn from(wire: GateWire) -> Self {
        match wire {
            GateWire::Hold { span_ms } => Self::Hold(Millis(span_ms)),
            GateWire::Analyse { within_ms } => Self::Analyse(Millis(within_ms)),
            GateWire::Approve { by, within_ms } => Self::Approve { by, within: Millis(within_ms) },
            GateWire::Run { job, within_ms } => Self::Run { job: job.0, within: Millis(within_ms) },
            GateWire::Check { job, within_ms, again } => {
                Self::Check { job: job.0, within: Millis(within_ms), again: again.into() }
            }
            GateWire::Ask(ask) => Self::Ask(ask.into()),
            GateWire::Mirror { share, span_ms } => Self::Mirror { share: share.0, span: span_ms.map(Millis) },
        }
    }
}

impl From<&Synthetic> for SyntheticWire {
    fn from(synthetic: &Synthetic) -> Self {
        let Synthetic { method, path, host, port, rate, count } = synthetic;
        let (path, host, port) = (path.clone(), host.clone(), Text(port.clone()));
        Self { method: (*method).into(), path, host, port, rate: *rate, count: *count }
    }
}

impl From<SyntheticWire> for Synthetic {
    fn from(wire: SyntheticWire) -> Self {
        let SyntheticWire { method, path, host, port, rate, count } = wire;
        Self { method: method.into(), path, host, port: port.0, rate, count }
    }
}

impl From<&Analysis> for AnalysisWire {
    fn from(analysis: &Analysis) -> Self {
        let metric =
            |metric: &Metric| MetricWire { kind: metric.kind.into(), worse_by: metric.worse_by.into() };
        Self {
            metrics: analysis.metrics.iter().map(metric).collect(),
            outside: analysis.outside.iter().map(OutsideMetricWire::from).collect(),
            alpha_ppm: analysis.alpha,
            inconclusive: match analysis.inconclusive {
                Inconclusive::Stop => InconclusiveWire::Stop,
                Inconclusive::Continue => InconclusiveWire::Continue,
                Inconclusive::Ask => InconclusiveWire::Ask,
            },
            extensions: analysis.extensions,
            synthetic: analysis.synthetic.as_deref().map(SyntheticWire::from),
            dry_run: analysis.dry_run,
        }
    }
}

impl From<AnalysisWire> for Analysis {
    fn from(wire: AnalysisWire) -> Self {
        let metric =
            |metric: MetricWire| Metric { kind: metric.kind.into(), worse_by: metric.worse_by.into() };
        Self {
            metrics: wire.metrics.into_iter().map(metric).collect(),
            outside: wire.outside.into_iter().map(OutsideMetric::from).collect(),
            alpha: wire.alpha_ppm,
            inconclusive: match wire.inconclusive {
                InconclusiveWire::Stop => Inconclusive::Stop,
                InconclusiveWire::Continue => Inconclusive::Continue,
                InconclusiveWire::Ask => Inconclusive::Ask,
            },
            extensions: wire.extensions,
            synthetic: wire.synthetic.map(|it| Arc::new(it.into())),
            dry_run: wire.dry_run,
        }
    }
}

impl From<MetricKind> for MetricKindWire {
    fn from(kind: MetricKind) -> Self {
        match kind {
            MetricKind::ErrorRate => Self::ErrorRate,
            MetricKind::ClientErrors => Self::ClientErrors,
            MetricKind::Latency { quantile } => Self::Latency { quantile_ppm: quantile },
        }
    }
}

impl From<MetricKindWire> for MetricKind {
    fn from(wire: MetricKindWire) -> Self {
        match wire {
            MetricKindWire::ErrorRate => Self::ErrorRate,
            MetricKindWire::ClientErrors => Self::ClientErrors,
            MetricKindWire::Latency { quantile_ppm } => Self::Latency { quantile: quantile_ppm },
        }
    }
}

impl From<Margin> for MarginWire {
    fn from(margin: Margin) -> Self {
        match margin {
            Margin::Absolute(by) => Self::Absolute(by),
            Margin::Relative(by) => Self::RelativePpm(by),
        }
    }
}

impl From<MarginWire> for Margin {
    fn from(wire: MarginWire) -> Self {
        match wire {
            MarginWire::Absolute(by) => Self::Absolute(by),
            MarginWire::RelativePpm(by) => Self::Relative(by),
        }
    }
}

impl From<Verdict> for VerdictWire {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Pass,
            Verdict::Fail => Self::Fail,
            Verdict::Inconclusive => Self::Inconclusive,
        }
    }
}

impl From<VerdictWire> for Verdict {
    fn from(wire: VerdictWire) -> Self {
        match wire {
            VerdictWire::Pass => Self::Pass,
            VerdictWire::Fail => Self::Fail,
            VerdictWire::Inconclusive => Self::Inconclusive,
        }
    }
}

impl From<&Evidence> for EvidenceWire {
    fn from(evidence: &Evidence) -> Self {
        Self {
            metric: evidence.metric.into(),
            worse_by: evidence.worse_by.into(),
            verdict: evidence.verdict.into(),
            baseline: evidence.baseline.into(),
            canary: evidence.canary.into(),
        }
    }
}

impl From<EvidenceWire> for Evidence {
    fn from(wire: EvidenceWire) -> Self {
        Self {
            metric: wire.metric.into(),
            worse_by: wire.worse_by.into(),
            verdict: wire.verdict.into(),
            baseline: wire.baseline.into(),
            canary: wire.canary.into(),
        }
    }
}

impl From<Estimate> for EstimateWire {
    fn from(Estimate { samples, value, low, high }: Estimate) -> Self {
        Self { samples, value, low, high }
    }
}

impl From<EstimateWire> for Estimate {
    fn from(EstimateWire { samples, value, low, high }: EstimateWire) -> Self {
        Self { samples, value, low, high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_kind_of_metric_are_stable() {
        for (kind, golden) in [
            (MetricKind::ErrorRate, r#""error_rate""#),
            (MetricKind::ClientErrors, r#""client_errors""#),
            (MetricKind::Latency { quantile: 990_000 }, r#"{"latency":{"quantile_ppm":990000}}"#),
        ] {
            assert_eq!(serde_json::to_string(&MetricKindWire::from(kind)).unwrap(), golden);
            assert_eq!(MetricKind::from(serde_json::from_str::<MetricKindWire>(golden).unwrap()), kind);
        }
    }
}
