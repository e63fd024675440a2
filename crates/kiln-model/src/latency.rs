//! How latencies are counted: the one layout of buckets that the edge fills and the analysis reads.
//!
//! A latency is a whole number of microseconds. Each octave is cut into [`BUCKETS_PER_OCTAVE`] buckets of equal width, so no bucket
//! is wider than 1/64 of what it holds, and below 128 µs each value has a bucket of its own. Counts add up: those of two threads, or
//! of two moments, are added bucket by bucket.

/// Buckets of one octave: an analysis rounds to the edges of buckets, so wide ones would hide a part of what a canary is slower by.
pub const BUCKETS_PER_OCTAVE: usize = 1 << OCTAVE_BITS;

/// Latencies from this one on, 2^30 µs or 18 minutes, share the last bucket: no timeout of a proxy is longer.
pub const BEYOND_US: u64 = 1 << 30;

/// How many buckets there are; 13 KiB of 64-bit counts.
pub const BUCKETS: usize = bucket(BEYOND_US) + 1;

const OCTAVE_BITS: u32 = 6;

/// Returns the bucket (`0..BUCKETS`) that counts latencies of `us` microseconds.
#[must_use]
pub const fn bucket(us: u64) -> usize {
    let us = if us < BEYOND_US { us } else { BEYOND_US };
    // Exact below two octaves' worth of buckets; above, the highest bit and the six after it are what counts.
    let shift = if us < 2 << OCTAVE_BITS { 0 } else { us.ilog2() - OCTAVE_BITS };
    ((shift as usize) << OCTAVE_BITS) + (us >> shift) as usize
}

/// Returns the lowest latency in microseconds that `bucket` counts; [`BEYOND_US`] for the last one and whatever is above.
#[must_use]
pub const fn lowest_us(bucket: usize) -> u64 {
    if bucket < 2 << OCTAVE_BITS {
        return bucket as u64;
    }
    if bucket >= BUCKETS {
        return BEYOND_US;
    }
    let shift = (bucket >> OCTAVE_BITS) - 1;
    ((bucket - (shift << OCTAVE_BITS)) as u64) << shift
}

/// Returns the highest latency in microseconds that `bucket` counts; none for the last one, which has no end.
#[must_use]
pub const fn highest_us(bucket: usize) -> Option<u64> {
    if bucket + 1 < BUCKETS { Some(lowest_us(bucket + 1) - 1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        assert_eq!(lowest_us(0), 0);
        for index in 0..BUCKETS - 1 {
            let highest = highest_us(index).unwrap();
            assert!(lowest_us(index) <= highest, "{index}");
            assert_eq!(bucket(lowest_us(index)), index);
            assert_eq!(bucket(highest), index);
            assert_eq!(bucket(highest + 1), index + 1);
        }
        assert_eq!(highest_us(BUCKETS - 1), None);
        assert_eq!(highest_us(usize::MAX - 1), None);
    }

    #[test]
    fn no_bucket_is_wider_than_a_64th_of_what_it_holds() {
        for index in 0..BUCKETS - 1 {
            let width = highest_us(index).unwrap() - lowest_us(index) + 1;
            assert!(width == 1 || width * BUCKETS_PER_OCTAVE as u64 <= lowest_us(index), "{index}");
        }
    }

    #[test]
    fn short_latencies_are_counted_exactly_and_endless_ones_together() {
        assert_eq!((bucket(0), bucket(1), bucket(127)), (0, 1, 127));
        assert_eq!((lowest_us(bucket(128)), highest_us(bucket(128))), (128, Some(129)));
        assert_eq!(bucket(BEYOND_US - 1), BUCKETS - 2);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(lowest_us(BUCKETS - 1), BEYOND_US);
        assert_eq!(BUCKETS, 1601);
    }
}
