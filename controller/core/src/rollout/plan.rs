//! Waves resolved to devices, once, when a Rotation begins.
//!
//! Devices are put in one order: by the UTC day on which their certificates end; within a day by rank in their group, so
//! that the first of every group come before the second of any; then by a hash of the id, which spreads devices that were
//! numbered in the order of their making; then by the id. Each wave takes the first that its selector matches. The result
//! depends on nothing else: not on the order of the input, nor on the numbers that stand for groups.
//!
//! Sizes are rounded up and never to nothing, allowances for failure down and possibly to nothing: a small fleet has a
//! canary, and a small wave forgives less.

use aws_lc_rs::digest;

use super::run::{Plan, PlannedWave};
use super::strategy::{Size, Strategy, Thresholds, Wave};

/// The most waves and windows of a strategy: each is a bit of a mask.
pub const MOST: usize = 64;

const DAY_S: i64 = 24 * 60 * 60;

/// A device that a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its id, unique in the plan.
    pub id: &'a str,
    /// End of its certificate, Unix seconds.
    pub not_after: i64,
    /// The value of the label that devices are spread over, as a number; equal for all where they are not spread.
    pub group: u32,
    /// Bit i: wave i's selector takes it ([`select::waves`](super::select::waves)).
    pub waves: u64,
}

/// Where a device stands in a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the candidate.
    pub candidate: u32,
    /// Its wave, from 0.
    pub wave: u32,
    /// Its turn within the wave, from 0.
    pub ordinal: u32,
}

/// What happens where a wave with a count or a selector finds too few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The plan is refused: somebody counted on those devices.
    Exact,
    /// The wave takes those there are: a fleet of which only some are due must not wait until the rest expires with them.
    Shrink,
}

/// Why there is no plan. Waves are numbered from 1, as for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to plan.
    #[error("there is no device to rotate")]
    Nobody,
    /// More devices than numbers.
    #[error("more than {} devices in one plan", u32::MAX)]
    TooManyDevices,
    /// A strategy without waves.
    #[error("there is no wave")]
    NoWaves,
    /// More waves than bits.
    #[error("{0} waves; the most is {MOST}")]
    TooManyWaves(usize),
    /// A count or percentage of 0: nothing is nothing here, never one.
    #[error("wave {number} ({name}) takes no device: a size of 0")]
    SizeZero {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
    },
    /// A percentage over 100.
    #[error("wave {number} ({name}) goes up to {percent} percent of the fleet; the most is 100")]
    Over {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
        /// As written.
        percent: u8,
    },
    /// A cumulative percentage not above the one before.
    #[error(
        "wave {number} ({name}) goes up to {percent} percent of the fleet and an earlier one up to {before}: \
         percentages are cumulative and must rise"
    )]
    NotRising {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
        /// As written.
        percent: u8,
        /// The highest before.
        before: u8,
    },
    /// The last wave would leave devices out.
    #[error("wave {number} ({name}) is the last one and must take the rest: percent 100, no count, no selector")]
    LastNotRest {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
    },
    /// A selector that matches no device.
    #[error("wave {number} ({name}) selects no device")]
    SelectsNobody {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
    },
    /// A count above what is left for it.
    #[error("wave {number} ({name}) counts {count} devices; there are {available} for it")]
    CountAbove {
        /// From 1.
        number: usize,
        /// The wave's.
        name: String,
        /// As written.
        count: u32,
        /// Left by earlier waves and matched by the selector.
        available: u32,
    },
}

/// Puts every candidate into exactly one wave, in the order of their turns (wave, then ordinal).
///
/// # Errors
/// When the strategy contradicts itself ([`check`]), there is no candidate, or a wave finds fewer devices than it counts on.
pub fn plan(strategy: &Strategy, candidates: &[Candidate<'_>]) -> Result<(Plan, Vec<Place>), PlanError> {
    plan_fitting(strategy, candidates, Fit::Exact)
}

/// [`plan`], with a choice of what to do where a wave finds too few.
///
/// # Errors
/// As [`plan`]; with [`Fit::Shrink`] never because a wave finds too few.
pub fn plan_fitting(
    strategy: &Strategy,
    candidates: &[Candidate<'_>],
    fit: Fit,
) -> Result<(Plan, Vec<Place>), PlanError> {
    check(&strategy.waves)?;
    let total = u32::try_from(candidates.len()).map_err(|_| PlanError::TooManyDevices)?;
    if total == 0 {
        return Err(PlanError::Nobody);
    }
    let mut left = order(candidates);
    let mut places = Vec::with_capacity(candidates.len());
    let mut waves = Vec::with_capacity(strategy.waves.len());
    for (index, wave) in strategy.waves.iter().enumerate() {
        let taken = take(&mut left, index, wanted(wave.size, total, count(&places)));
        if fit == Fit::Exact {
            found_enough(index, wave, candidates, count(&taken))?;
        }
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        waves.push(resolved(wave, count(&taken)));
        places.extend(taken.iter().zip(0..).map(|(&candidate, ordinal)| Place {
            candidate,
            wave: number,
            ordinal,
        }));
    }
    let mut hash = Fingerprint::new(b"certwave plan 1");
    hash.field(&json(strategy));
    hash.places(&places, candidates);
    let hash = hash.finish();
    Ok((Plan { waves, hash }, places))
}

/// Appends devices that came to the fleet while it runs to the last wave, in the order of the plan among themselves. Nobody
/// else's place changes; the allowance for failure grows with the wave; the hash covers the joiners from then on. Without
/// joiners, the plan stays as it is.
pub fn join(plan: &Plan, strategy: &Strategy, joiners: &[Candidate<'_>]) -> (Plan, Vec<Place>) {
    let mut next = plan.clone();
    let wave = u32::try_from(plan.waves.len().saturating_sub(1)).unwrap_or(u32::MAX);
    let (Some(last), Some(rules)) = (next.waves.last_mut(), strategy.waves.last()) else {
        return (next, Vec::new());
    };
    let places: Vec<Place> = order(joiners)
        .into_iter()
        .zip(last.size..)
        .map(|(turn, ordinal)| Place {
            candidate: turn.candidate,
            wave,
            ordinal,
        })
        .collect();
    if !places.is_empty() {
        *last = resolved(rules, last.size.saturating_add(count(&places)));
        let mut hash = Fingerprint::new(b"certwave join 1");
        hash.field(plan.hash.as_bytes());
        hash.places(&places, joiners);
        next.hash = hash.finish();
    }
    (next, places)
}

/// Refuses waves that contradict themselves or one another, whatever the fleet: sizes of 0, percentages over 100 or not
/// rising, a last wave that is not the rest.
///
/// # Errors
/// The first contradiction.
pub fn check(waves: &[Wave]) -> Result<(), PlanError> {
    if waves.len() > MOST {
        return Err(PlanError::TooManyWaves(waves.len()));
    }
    let mut before = 0;
    for (number, wave) in (1..).zip(waves) {
        let name = || wave.name.clone();
        match wave.size {
            Size::Count(0) | Size::Percent(0) => return Err(PlanError::SizeZero { number, name: name() }),
            Size::Percent(percent) if percent > 100 => {
                return Err(PlanError::Over {
                    number,
                    name: name(),
                    percent,
                });
            }
            Size::Percent(percent) if percent <= before => {
                return Err(PlanError::NotRising {
                    number,
                    name: name(),
                    percent,
                    before,
                });
            }
            Size::Percent(percent) => before = percent,
            Size::Count(_) => {}
        }
    }
    let last = waves.last().ok_or(PlanError::NoWaves)?;
    if last.size == Size::Percent(100) && last.selector.is_empty() {
        Ok(())
    } else {
        Err(PlanError::LastNotRest {
            number: waves.len(),
            name: last.name.clone(),
        })
    }
}

/// Failures that a wave of `size` devices may have: the number a person gave, else the share rounded down; 0 is legal.
pub fn max_failed(thresholds: &Thresholds, size: u32) -> u32 {
    thresholds.max_failed.unwrap_or_else(|| {
        let share = u64::from(size) * u64::from(thresholds.max_failed_percent) / 100;
        u32::try_from(share).unwrap_or(u32::MAX)
    })
}

/// Devices that a wave asks for when `placed` of `total` have a place: for a percentage what is missing up to that share of
/// all, rounded up, and always one.
fn wanted(size: Size, total: u32, placed: u32) -> u32 {
    match size {
        Size::Count(count) => count,
        Size::Percent(percent) => {
            let share = (u64::from(total) * u64::from(percent)).div_ceil(100);
            let share = u32::try_from(share).unwrap_or(u32::MAX);
            share.saturating_sub(placed).max(1)
        }
    }
}

/// Moves the first `wanted` that wave `index` takes out of `left`; both keep their order.
fn take(left: &mut Vec<Turn>, index: usize, wanted: u32) -> Vec<u32> {
    let mut taken = Vec::new();
    let mut missing = wanted;
    left.retain(|turn| {
        let chosen = missing > 0 && turn.waves >> index & 1 == 1;
        if chosen {
            missing -= 1;
            taken.push(turn.candidate);
        }
        !chosen
    });
    taken
}

/// Refuses a wave whose selector finds nobody in the whole fleet, or that counts more than were left for it. A percentage
/// that earlier waves left nothing of is no mistake.
fn found_enough(index: usize, wave: &Wave, candidates: &[Candidate<'_>], available: u32) -> Result<(), PlanError> {
    let (number, name) = (index + 1, || wave.name.clone());
    let nobody = available == 0 && candidates.iter().all(|candidate| candidate.waves >> index & 1 == 0);
    match wave.size {
        _ if nobody => Err(PlanError::SelectsNobody { number, name: name() }),
        Size::Count(count) if available < count => Err(PlanError::CountAbove {
            number,
            name: name(),
            count,
            available,
        }),
        _ => Ok(()),
    }
}

/// A wave of `size` devices with its allowances in numbers.
fn resolved(wave: &Wave, size: u32) -> PlannedWave {
    PlannedWave {
        name: wave.name.clone(),
        size,
        max_failed: max_failed(&wave.thresholds, size),
        max_lost: wave.thresholds.max_lost,
    }
}

/// A candidate in line.
#[derive(Clone, Copy)]
struct Turn {
    candidate: u32,
    /// [`Candidate::waves`], at hand.
    waves: u64,
    /// What is sorted by, most significant first: the day (32 bits), the group or the rank in it (32), the hash (64).
    key: u128,
}

impl Turn {
    /// Day and group, or day and rank.
    fn upper(&self) -> u128 {
        self.key >> 64
    }
}

/// The candidates in the order of the plan.
fn order(candidates: &[Candidate<'_>]) -> Vec<Turn> {
    let mut line: Vec<Turn> = candidates
        .iter()
        .zip(0..)
        .map(|(candidate, index)| Turn {
            candidate: index,
            waves: candidate.waves,
            key: u128::from(day(candidate.not_after)) << 96
                | u128::from(candidate.group) << 64
                | u128::from(stable_hash(candidate.id)),
        })
        .collect();
    let id = |turn: &Turn| candidates.get(turn.candidate as usize).map(|candidate| candidate.id);
    let compare = |a: &Turn, b: &Turn| a.key.cmp(&b.key).then_with(|| id(a).cmp(&id(b)));
    line.sort_unstable_by(compare);
    // Groups make way for ranks in them.
    let (mut group, mut rank) = (None, 0u32);
    for turn in &mut line {
        rank = if group == Some(turn.upper()) { rank + 1 } else { 0 };
        group = Some(turn.upper());
        turn.key = turn.key >> 96 << 96 | u128::from(rank) << 64 | turn.key & u128::from(u64::MAX);
    }
    line.sort_unstable_by(compare);
    line
}

/// The UTC day of a time in Unix seconds, from 0 for the earliest; what no calendar reaches counts as its first or last day.
fn day(time: i64) -> u32 {
    let days = time.div_euclid(DAY_S).saturating_sub(i64::from(i32::MIN));
    u32::try_from(days.max(0)).unwrap_or(u32::MAX)
}

/// 64-bit FNV-1a of the id, its bits then mixed as `MurmurHash3` ends: the same for ever, on every machine. It spreads; it
/// is no defence, and need not be one: who chooses an id chooses a place in the order, nothing more.
fn stable_hash(id: &str) -> u64 {
    let mut hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// SHA-256 (FIPS 180-4) over fields that say how long they are, so that no two memberships read the same.
struct Fingerprint(digest::Context);

impl Fingerprint {
    fn new(domain: &[u8]) -> Self {
        let mut hash = Self(digest::Context::new(&digest::SHA256));
        hash.field(domain);
        hash
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    /// Who is in which wave, in order.
    fn places(&mut self, places: &[Place], candidates: &[Candidate<'_>]) {
        // One call for each device costs more than the hashing.
        let mut buffer = Vec::with_capacity(64 * 1024);
        for place in places {
            let id = candidates.get(place.candidate as usize).map_or("", |found| found.id);
            buffer.extend_from_slice(&place.wave.to_be_bytes());
            buffer.extend_from_slice(&(id.len() as u64).to_be_bytes());
            buffer.extend_from_slice(id.as_bytes());
            if buffer.len() > 60 * 1024 {
                self.0.update(&buffer);
                buffer.clear();
            }
        }
        self.0.update(&buffer);
    }

    /// Lower-case hexadecimal.
    fn finish(self) -> String {
        hex::encode(self.0.finish())
    }
}

/// The strategy in JSON, always the same for the same strategy: fields in the order of their declaration, labels sorted.
fn json(strategy: &Strategy) -> Vec<u8> {
    serde_json::to_vec(strategy).expect("a strategy is plain values with keys that are strings")
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).unwrap_or(u32::MAX)
}
