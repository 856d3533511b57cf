//! Whether limits held at every instant, by what devices recorded: pure functions that know nothing of the controller.

use std::collections::{BTreeMap, BTreeSet};

use certwave_protocol::message::Progress;

use super::history::{History, Millis, Step, millis};

/// The time that a rate is counted over, milliseconds.
const MINUTE: Millis = 60_000;

/// What the devices' history says of the limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What must not have been, in words.
    pub breaches: Vec<String>,
    /// The most devices that were busy at the same time.
    pub peak_in_flight: usize,
    /// How often a job was the last one that was allowed in flight: what shows that the limit was in the way.
    pub at_limit: usize,
    /// The most jobs that were taken on within a minute.
    pub peak_per_minute: usize,
    /// Jobs that were taken on.
    pub jobs: usize,
    /// Jobs that devices committed.
    pub committed: usize,
}

/// A job that a device took on.
struct Start {
    at: Millis,
    /// Devices that were busy before, at that instant.
    busy: usize,
}

/// Judges a whole run.
pub fn limits(history: &History) -> Verdict {
    let mut verdict = Verdict::default();
    let starts = in_flight(history, &mut verdict);
    rate(history, &starts, &mut verdict);
    verdict.jobs = starts.len();
    let committed = history
        .steps
        .iter()
        .filter(|step| step.progress == Some(Progress::Committed));
    let committed: BTreeSet<_> = committed.filter_map(Step::counted).collect();
    verdict.committed = committed.len();
    verdict
}

/// Who started from a certificate at the instant at which it was seen to be revoked for good, or later. `serials` are those of the
/// devices' certificates, by SHA-256; `revoked` says when each was first seen to be revoked.
///
/// Nobody is revoked here but by a retirement, and that waits until the device has come back by its new certificate.
pub fn revoked_too_early(
    steps: &[Step],
    serials: &BTreeMap<String, String>,
    revoked: &BTreeMap<String, Millis>,
) -> Vec<String> {
    // When a device was last seen to start from a certificate; of the one that it starts from now, for ever.
    let mut until: BTreeMap<(&str, &str), Millis> = BTreeMap::new();
    let mut now: BTreeMap<&str, &str> = BTreeMap::new();
    for step in steps {
        let (device, Some(leaf)) = (step.device.as_str(), step.leaf.as_deref()) else {
            continue;
        };
        if let Some(before) = now.insert(device, leaf).filter(|before| *before != leaf) {
            until.insert((device, before), step.at);
        }
        until.insert((device, leaf), Millis::MAX);
    }
    let too_early = |((device, leaf), until): (&(&str, &str), &Millis)| {
        let at = revoked.get(serials.get(*leaf)?)?;
        let text = format!("{device} still started from {leaf} when it was seen to be revoked for good, at {at}");
        (until > at).then_some(text)
    };
    until.iter().filter_map(too_early).collect()
}

/// Follows who is busy. Whoever starts must find room: what is allowed may have become less under those that were busy before.
///
/// A device is busy for less time than the controller has to count it: from when it accepts, which is after the job was sent, to
/// its last word, which is before that is heard. One that makes no progress for as long as the Fleet is patient has lost its slot,
/// by the declaration; it is busy no longer, whatever it thinks itself.
fn in_flight(history: &History, verdict: &mut Verdict) -> Vec<Start> {
    // By device: its job and how far it is with it, and when it loses its slot.
    let mut known: BTreeMap<&str, (Option<&str>, Option<Progress>)> = BTreeMap::new();
    let mut busy: BTreeMap<&str, Millis> = BTreeMap::new();
    let mut begun: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut starts = Vec::new();
    for step in &history.steps {
        let device = step.device.as_str();
        busy.retain(|_, until| *until > step.at);
        let now = (step.counted(), step.progress);
        let before = known.insert(device, now);
        if before == Some(now) {
            continue;
        }
        if !step.busy() {
            busy.remove(device);
            continue;
        }
        let patience = match step.progress {
            Some(Progress::Accepted) => history.patience.answer,
            _ => history.patience.trial,
        };
        let others = busy.keys().filter(|other| **other != device).count();
        busy.insert(device, step.at.saturating_add(millis(patience)));
        verdict.peak_in_flight = verdict.peak_in_flight.max(busy.len());
        let Some(job) = step.counted().filter(|job| begun.insert((device, *job))) else {
            continue;
        };
        starts.push(Start {
            at: step.at,
            busy: others,
        });
        let allowed = history.allowed(step.at).in_flight;
        verdict.at_limit += usize::from(busy.len() == allowed);
        if busy.len() > allowed {
            let all: Vec<_> = busy.keys().copied().collect();
            verdict.breaches.push(format!(
                "maxInFlight: at {} {device} began job {job} as one of {}, and {allowed} are allowed: {}",
                step.at,
                busy.len(),
                all.join(" ")
            ));
        }
    }
    starts
}

/// Counts jobs over each minute. Those taken on within it were sent within it, or held a slot since before: at most as many as
/// were allowed in flight, less those that were busy already.
fn rate(history: &History, starts: &[Start], verdict: &mut Verdict) {
    for (first, start) in starts.iter().enumerate() {
        let end = start.at.saturating_add(MINUTE);
        let within = starts[first..].iter().take_while(|start| start.at < end).count();
        verdict.peak_per_minute = verdict.peak_per_minute.max(within);
        // What was sent before the minute was sent under the limits of then.
        let before = start.at.saturating_sub(millis(history.patience.answer));
        let most = history.most_allowed(before, end);
        let allowed = most.per_minute + most.in_flight.saturating_sub(start.busy);
        if within > allowed {
            verdict.breaches.push(format!(
                "maxPerMinute: {within} jobs began in the minute from {}, {} of them may have been sent before, and {} are allowed",
                start.at,
                most.in_flight.saturating_sub(start.busy),
                most.per_minute
            ));
            // The next minutes say the same again.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::history::{Goal, Limits, Patience, Reign};
    use super::*;

    fn step(at: Millis, device: &str, job: &str, progress: Progress) -> Step {
        Step {
            at,
            device: device.to_owned(),
            connected: true,
            leaf: None,
            job: Some(job.to_owned()),
            goal: Some(Goal {
                kind: "rotate".to_owned(),
            }),
            progress: Some(progress),
        }
    }

    fn history(in_flight: usize, per_minute: usize, steps: Vec<Step>) -> History {
        History {
            steps,
            reigns: Vec::new(),
            fleet: Limits { in_flight, per_minute },
            patience: Patience {
                answer: Duration::from_secs(30),
                trial: Duration::from_mins(1),
            },
        }
    }

    /// A device's whole job.
    fn job(from: Millis, until: Millis, device: &str) -> Vec<Step> {
        let name = format!("{device}-{from}");
        vec![
            step(from, device, &name, Progress::Accepted),
            step(from + 1, device, &name, Progress::Stored),
            step(until, device, &name, Progress::Committed),
        ]
    }

    fn sorted(jobs: impl IntoIterator<Item = Vec<Step>>) -> Vec<Step> {
        let mut steps: Vec<Step> = jobs.into_iter().flatten().collect();
        steps.sort_by_key(|step| step.at);
        steps
    }

    #[test]
    fn as_many_devices_as_are_allowed_are_no_breach_and_one_more_is() {
        let two = [job(10, 100, "a"), job(20, 90, "b"), job(95, 200, "c")];
        let verdict = limits(&history(2, 100, sorted(two.clone())));
        assert_eq!((verdict.breaches.len(), verdict.peak_in_flight), (0, 2), "{verdict:?}");
        assert_eq!((verdict.jobs, verdict.committed, verdict.at_limit), (3, 3, 2));
        let three = two.into_iter().chain([job(50, 60, "d")]);
        let verdict = limits(&history(2, 100, sorted(three)));
        assert_eq!((verdict.breaches.len(), verdict.peak_in_flight), (1, 3));
        assert!(verdict.breaches[0].contains("at 50 d began"), "{verdict:?}");
    }

    #[test]
    fn a_breach_of_a_single_instant_is_seen() {
        // b ends in the same millisecond in which c begins, as it may; and one later, as it may not.
        let ends = |at| sorted([job(10, 100, "a"), job(20, at, "b"), job(90, 200, "c")]);
        assert!(limits(&history(2, 100, ends(89))).breaches.is_empty());
        assert_eq!(limits(&history(2, 100, ends(91))).breaches.len(), 1);
    }

    #[test]
    fn a_power_cut_and_a_reconnection_free_no_slot() {
        let mut steps = sorted([job(10, 500, "a"), job(300, 400, "b")]);
        let again = Step {
            connected: false,
            ..step(200, "a", "a-10", Progress::Stored)
        };
        steps.insert(2, again);
        assert_eq!(limits(&history(1, 100, steps)).breaches.len(), 1);
    }

    #[test]
    fn a_device_that_says_nothing_for_longer_than_the_fleet_is_patient_has_lost_its_slot() {
        let late = |at| {
            vec![
                step(10, "a", "1", Progress::Accepted),
                step(20, "a", "1", Progress::Stored),
                step(at, "b", "2", Progress::Accepted),
            ]
        };
        assert!(limits(&history(1, 100, late(60_021))).breaches.is_empty());
        assert_eq!(limits(&history(1, 100, late(60_019))).breaches.len(), 1);
    }

    #[test]
    fn a_rotation_is_held_to_its_own_limit_and_those_before_it_may_still_be_busy() {
        let mut history = history(
            1,
            100,
            sorted([job(10, 500, "a"), job(20, 500, "b"), job(600, 700, "c")]),
        );
        let reign = |from, until, in_flight| Reign {
            rotation: "r".to_owned(),
            from,
            until,
            limits: Limits {
                in_flight,
                per_minute: 100,
            },
        };
        history.reigns = vec![reign(0, 100, 2), reign(100, 1000, 1)];
        assert!(limits(&history).breaches.is_empty());
        history.steps = sorted([history.steps, job(450, 460, "d")]);
        let breaches = limits(&history).breaches;
        assert!(
            breaches.len() == 1 && breaches[0].contains("as one of 3, and 1 are allowed"),
            "{breaches:?}"
        );
    }

    #[test]
    fn one_job_too_many_within_a_minute_is_seen() {
        // One at a time: of the first, nothing else can have been sent before.
        let every =
            |gap: Millis, count: Millis| sorted((0..count).map(|n| job(n * gap, n * gap + 5, &format!("d{n}"))));
        let verdict = limits(&history(1, 10, every(6_000, 30)));
        assert_eq!((verdict.breaches.len(), verdict.peak_per_minute), (0, 10));
        // Eleven may be one that was sent before, and ten; twelve may not.
        assert!(limits(&history(1, 10, every(5_500, 30))).breaches.is_empty());
        let breaches = limits(&history(1, 10, every(5_100, 30))).breaches;
        assert!(
            breaches.len() == 1 && breaches[0].contains("12 jobs began"),
            "{breaches:?}"
        );
    }

    #[test]
    fn a_certificate_revoked_before_its_device_has_left_it_is_seen() {
        let starts_from = |at, leaf: &str| Step {
            leaf: Some(leaf.to_owned()),
            ..step(at, "a", "1", Progress::Committed)
        };
        let pair = |leaf: &str| (leaf.to_owned(), format!("{leaf}-serial"));
        let serials = ["old", "new"].map(pair).into();
        let steps = [starts_from(1, "old"), starts_from(100, "new")];
        let early = |serial: &str, at: Millis| revoked_too_early(&steps, &serials, &[(serial.to_owned(), at)].into());
        assert!(early("old-serial", 100).is_empty());
        assert_eq!(early("old-serial", 99).len(), 1);
        assert_eq!(early("new-serial", 500).len(), 1, "it starts from it for ever");
        assert!(early("stranger", 1).is_empty());
        // It went back to what was revoked meanwhile.
        let back = [starts_from(1, "old"), starts_from(100, "new"), starts_from(300, "old")];
        assert_eq!(
            revoked_too_early(&back, &serials, &[("old-serial".to_owned(), 200)].into()).len(),
            1
        );
    }

    #[test]
    fn a_job_that_is_sent_again_counts_once() {
        let again = |at| step(at, "a", "1", Progress::Accepted);
        let ended = |at| step(at, "a", "0", Progress::Committed);
        // A power cut took the journal back to the job before.
        let steps = (0..40).flat_map(|n| [again(n * 100), ended(n * 100 + 50)]).collect();
        let verdict = limits(&history(1, 1, steps));
        assert_eq!((verdict.breaches.len(), verdict.jobs), (0, 1));
    }
}
