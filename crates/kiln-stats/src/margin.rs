//! How much worse a canary may be.

/// How much worse than the baseline a canary may be and still be fine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Margin {
    /// In the metric's own unit: 0.01 of an error rate is one request in a hundred more; of a latency, microseconds; of a count,
    /// events per unit of exposure.
    Absolute(f64),
    /// As a share of the baseline's value: 0.2 is a fifth more.
    Relative(f64),
}

impl Margin {
    /// Returns the number of the margin, which is also the unit in which [`Effect`](crate::Evidence::effect) is told.
    #[must_use]
    pub const fn value(self) -> f64 {
        match self {
            Self::Absolute(value) | Self::Relative(value) => value,
        }
    }

    /// Whether a canary can be judged by it: a finite number that is not negative. At zero a canary that equals its baseline never
    /// passes.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        self.value().is_finite() && self.value() >= 0.0
    }

    /// Returns the same kind of margin with another number.
    pub(crate) const fn with(self, value: f64) -> Self {
        match self {
            Self::Absolute(_) => Self::Absolute(value),
            Self::Relative(_) => Self::Relative(value),
        }
    }

    /// The worst allowed value of the canary is this offset and this slope times the baseline's.
    pub(crate) const fn line(self) -> (f64, f64) {
        match self {
            Self::Absolute(value) => (value, 1.0),
            Self::Relative(value) => (0.0, 1.0 + value),
        }
    }

    /// Returns by how much `canary` is worse than `baseline`; none where a share of nothing is asked for.
    pub(crate) fn effect(self, baseline: f64, canary: f64) -> Option<f64> {
        match self {
            Self::Absolute(_) => Some(canary - baseline),
            Self::Relative(_) if baseline > 0.0 => Some(canary / baseline - 1.0),
            Self::Relative(_) => None,
        }
    }
}
