//! When to try again.

use crate::model::Millis;

/// The longest pause, milliseconds.
pub const MAX: Millis = 24 * 60 * 60 * 1000;

/// Pause before attempt `attempt + 1`: `base` doubled with each attempt, at most [`MAX`], and between half and the whole
/// of that by `seed`, so that devices which failed together do not come back together.
pub fn pause(base: Millis, attempt: u32, seed: u64) -> Millis {
    let factor = 1i64 << attempt.saturating_sub(1).min(20);
    let full = base.max(0).saturating_mul(factor).min(MAX);
    let half = full / 2;
    // SplitMix64's finalizer spreads ids that differ in a few bits only.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    half + i64::try_from(z % (u64::try_from(full - half).unwrap_or(0) + 1)).unwrap_or(0)
}
