//! Numbers: exact decimals where possible, else binary floating point.
//!
//! `0.1 + 0.2` is `0.3` and integers are exact to 38 digits. Terraform computes with 512 bits; what doesn't fit into a
//! decimal here (such as `1 / 3`) has the 53 bits of an `f64`.

use std::cmp::Ordering;
use std::fmt;

/// A decimal's digits after the point: more than money or time need, and 10^18 still leaves room to multiply in 128 bits.
const SCALE_MAX: u32 = 30;

/// A number; never NaN nor infinite.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    /// `digits * 10^-scale`, with the least scale.
    Decimal { digits: i128, scale: u32 },
    /// What is no such decimal.
    Float(f64),
}

impl Number {
    pub(crate) const ZERO: Self = Self::Decimal { digits: 0, scale: 0 };

    /// Reads a number as HCL writes it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let unsigned = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        let digits_only = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
        if unsigned.is_empty() || !digits_only(unsigned) || !digits_only(fraction) {
            return None;
        }
        if mantissa.ends_with('.') {
            return None;
        }
        let fraction = fraction.trim_end_matches('0');
        let scale = i64::try_from(fraction.len()).ok()? - i64::from(exponent);
        let digits = format!("{whole}{fraction}").parse::<i128>().ok();
        digits
            .and_then(|digits| Self::decimal(digits, scale))
            .or_else(|| text.parse::<f64>().ok().and_then(Self::from_f64))
    }

    /// Returns a decimal with the least scale, or nothing if it doesn't fit.
    fn decimal(mut digits: i128, mut scale: i64) -> Option<Self> {
        if digits == 0 {
            return Some(Self::ZERO);
        }
        while scale > 0 && digits % 10 == 0 {
            digits /= 10;
            scale -= 1;
        }
        while scale < 0 {
            digits = digits.checked_mul(10)?;
            scale += 1;
        }
        let scale = u32::try_from(scale).ok().filter(|s| *s <= SCALE_MAX)?;
        Some(Self::Decimal { digits, scale })
    }

    pub(crate) fn from_f64(value: f64) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        // Above 2^53 neighbours are more than 1 apart, but the value itself is an exact integer up to i128.
        if value.fract() == 0.0 && value.abs() < 1e30 {
            return Some(Self::Decimal { digits: value as i128, scale: 0 });
        }
        Some(Self::Float(value))
    }

    pub(crate) fn to_f64(self) -> f64 {
        match self {
            Self::Decimal { digits, scale: 0 } => digits as f64,
            // Through text: the nearest double of the decimal, where dividing would round twice.
            Self::Decimal { .. } => self.to_string().parse().unwrap_or(f64::MAX),
            Self::Float(value) => value,
        }
    }

    /// Returns the value if it is a whole number that fits.
    pub(crate) fn to_i128(self) -> Option<i128> {
        match self {
            Self::Decimal { digits, scale: 0 } => Some(digits),
            _ => None,
        }
    }

    /// Returns the value if it is a whole number that fits.
    pub(crate) fn to_int<T: TryFrom<i128>>(self) -> Option<T> {
        T::try_from(self.to_i128()?).ok()
    }

    pub(crate) fn is_negative(self) -> bool {
        match self {
            Self::Decimal { digits, .. } => digits < 0,
            Self::Float(value) => value < 0.0,
        }
    }

    pub(crate) fn is_zero(self) -> bool {
        matches!(self, Self::Decimal { digits: 0, .. }) || matches!(self, Self::Float(0.0))
    }

    pub(crate) fn negate(self) -> Self {
        match self {
            Self::Decimal { digits, scale } => match digits.checked_neg() {
                Some(digits) => Self::Decimal { digits, scale },
                None => Self::Float(-(digits as f64)),
            },
            Self::Float(value) => Self::Float(-value),
        }
    }

    pub(crate) fn add(self, other: Self) -> Option<Self> {
        let exact = self
            .aligned(other)
            .and_then(|(a, b, scale)| a.checked_add(b).and_then(|sum| Self::decimal(sum, i64::from(scale))));
        exact.or_else(|| Self::from_f64(self.to_f64() + other.to_f64()))
    }

    pub(crate) fn subtract(self, other: Self) -> Option<Self> {
        self.add(other.negate())
    }

    pub(crate) fn multiply(self, other: Self) -> Option<Self> {
        let exact = match (self, other) {
            (Self::Decimal { digits: a, scale: s }, Self::Decimal { digits: b, scale: t }) => {
                a.checked_mul(b).and_then(|digits| Self::decimal(digits, i64::from(s) + i64::from(t)))
            }
            _ => None,
        };
        exact.or_else(|| Self::from_f64(self.to_f64() * other.to_f64()))
    }

    /// Divides; nothing for a zero divisor.
    pub(crate) fn divide(self, other: Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let exact = self.aligned(other).and_then(|(a, b, _)| {
            let mut a = a;
            for scale in 0..=i64::from(SCALE_MAX) {
                if a.checked_rem(b)? == 0 {
                    return Self::decimal(a.checked_div(b)?, scale);
                }
                a = a.checked_mul(10)?;
            }
            None
        });
        exact.or_else(|| Self::from_f64(self.to_f64() / other.to_f64()))
    }

    /// The remainder with the sign of the dividend; nothing for a zero divisor.
    pub(crate) fn remainder(self, other: Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let exact = self.aligned(other).and_then(|(a, b, scale)| {
            a.checked_rem(b).and_then(|rest| Self::decimal(rest, i64::from(scale)))
        });
        exact.or_else(|| Self::from_f64(self.to_f64() % other.to_f64()))
    }

    pub(crate) fn floor(self) -> Self {
        match self {
            Self::Decimal { digits, scale } => {
                let unit = 10_i128.pow(scale);
                Self::Decimal { digits: digits.div_euclid(unit), scale: 0 }
            }
            Self::Float(value) => Self::from_f64(value.floor()).unwrap_or(self),
        }
    }

    pub(crate) fn ceil(self) -> Self {
        self.negate().floor().negate()
    }

    /// Brings both to one scale.
    fn aligned(self, other: Self) -> Option<(i128, i128, u32)> {
        let (Self::Decimal { digits: a, scale: s }, Self::Decimal { digits: b, scale: t }) = (self, other)
        else {
            return None;
        };
        let scale = s.max(t);
        let a = a.checked_mul(10_i128.checked_pow(scale - s)?)?;
        let b = b.checked_mul(10_i128.checked_pow(scale - t)?)?;
        Some((a, b, scale))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match self.aligned(*other) {
            Some((a, b, _)) => a.cmp(&b),
            None => self.to_f64().total_cmp(&other.to_f64()),
        }
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Decimal { digits: i128::from(value), scale: 0 }
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<i128> for Number {
    fn from(digits: i128) -> Self {
        Self::Decimal { digits, scale: 0 }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Decimal { digits, scale: 0 } => write!(f, "{digits}"),
            Self::Decimal { digits, scale } => {
                let sign = if digits < 0 { "-" } else { "" };
                let scale = scale as usize;
                let text = format!("{:0>width$}", digits.unsigned_abs(), width = scale + 1);
                let (whole, fraction) = text.split_at(text.len() - scale);
                write!(f, "{sign}{whole}.{fraction}")
            }
            Self::Float(value) => write!(f, "{value}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn decimals_add_exactly() {
        assert_eq!(n("0.1").add(n("0.2")).unwrap().to_string(), "0.3");
        assert_eq!(n("1e-3").multiply(n("1000")).unwrap().to_string(), "1");
        assert_eq!(
            n("10000000000000000000000000").add(n("1")).unwrap().to_string(),
            "10000000000000000000000001"
        );
    }

    #[test]
    fn division_is_exact_where_it_ends() {
        assert_eq!(n("1").divide(n("8")).unwrap().to_string(), "0.125");
        assert_eq!(n("1").divide(n("3")).unwrap().multiply(n("3")).unwrap().to_string(), "1");
        assert!(n("1").divide(n("0")).is_none());
    }

    #[test]
    fn rounding_goes_towards_infinity_on_its_side() {
        assert_eq!(n("-1.5").floor().to_string(), "-2");
        assert_eq!(n("-1.5").ceil().to_string(), "-1");
        assert_eq!(n("1e300").floor(), n("1e300"));
    }

    #[test]
    fn huge_numbers_do_not_overflow() {
        let huge = n("170141183460469231731687303715884105727");
        assert!(huge.add(huge).unwrap() > huge);
        assert!(huge.multiply(huge).unwrap() > huge);
        assert!(n("1e308").multiply(n("1e308")).is_none());
        assert!(Number::parse("1e999999999999").is_none());
        assert!(Number::parse("1e400").is_none());
        assert_eq!(n("-170141183460469231731687303715884105728").remainder(n("-1")).unwrap(), Number::ZERO);
        assert!(n("-170141183460469231731687303715884105728").divide(n("-1")).is_some());
    }
}
