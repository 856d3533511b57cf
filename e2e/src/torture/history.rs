//! What is recorded of a run: what devices did, by their own word, and which limits were in force when.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use certwave_protocol::message::Progress;
use serde::Deserialize;

/// Unix milliseconds by this machine's clock, which nobody has jump.
pub type Millis = u64;

/// The time now.
pub fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

/// A time in milliseconds.
pub fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// One line of the devices' history: how a device stands after a step of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Step {
    /// When.
    pub at: Millis,
    /// Its id.
    pub device: String,
    /// Connected under its own name.
    pub connected: bool,
    /// SHA-256 of the leaf that it starts from.
    pub leaf: Option<String>,
    /// Its latest job.
    pub job: Option<String>,
    /// What that job wants to reach.
    pub goal: Option<Goal>,
    /// How far it is with that.
    pub progress: Option<Progress>,
}

/// What a job wants to reach.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Goal {
    /// `rotate`, `enrol`, `rollback` or `trust`.
    pub kind: String,
}

impl Step {
    /// The job, if it is one that limits count: an enrolment is none.
    pub fn counted(&self) -> Option<&str> {
        let counts = self.goal.as_ref().is_some_and(|goal| goal.kind != "enrol");
        self.job.as_deref().filter(|_| counts)
    }

    /// Whether the device is between accepting that job and its last word on it.
    pub fn busy(&self) -> bool {
        let under_way = |progress| {
            matches!(
                progress,
                Progress::Accepted | Progress::Stored | Progress::Trial | Progress::TrialOver
            )
        };
        self.counted().is_some() && self.progress.is_some_and(under_way)
    }
}

/// The steps in these files, in the order of their times.
///
/// # Errors
/// When a file cannot be read, or a line of it is none.
pub fn steps<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        for line in text.lines() {
            steps.push(serde_json::from_str::<Step>(line).with_context(|| format!("{}: {line}", file.display()))?);
        }
    }
    steps.sort_by_key(|step| step.at);
    Ok(steps)
}

/// What a fleet's people allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Devices between being sent a job and its end.
    pub in_flight: usize,
    /// Jobs sent within any minute.
    pub per_minute: usize,
}

/// How long a device that says nothing keeps its slot, by the Fleet's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until it must have been heard to accept.
    pub answer: Duration,
    /// From then on: a step and a trial.
    pub trial: Duration,
}

/// A Rotation, and what it allowed while it was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reign {
    /// Its name.
    pub rotation: String,
    /// Before it was created.
    pub from: Millis,
    /// After it had ended.
    pub until: Millis,
    /// What it allowed.
    pub limits: Limits,
}

/// Everything that limits are judged by.
#[derive(Debug, Clone)]
pub struct History {
    /// What devices did, in the order of time.
    pub steps: Vec<Step>,
    /// The Rotations, one after the other.
    pub reigns: Vec<Reign>,
    /// What the Fleet allows while no Rotation is there.
    pub fleet: Limits,
    /// See there.
    pub patience: Patience,
}

impl History {
    /// What was allowed at this time.
    pub fn allowed(&self, at: Millis) -> Limits {
        let reign = self
            .reigns
            .iter()
            .find(|reign| (reign.from..=reign.until).contains(&at));
        reign.map_or(self.fleet, |reign| reign.limits)
    }

    /// The most that was allowed within a time: of each limit by itself.
    pub fn most_allowed(&self, from: Millis, until: Millis) -> Limits {
        let overlapping = self.reigns.iter().filter(|r| r.from <= until && r.until >= from);
        overlapping.fold(self.fleet, |most, reign| Limits {
            in_flight: most.in_flight.max(reign.limits.in_flight),
            per_minute: most.per_minute.max(reign.limits.per_minute),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_several_simulators_come_in_the_order_of_their_times() {
        let directory = tempfile::tempdir().unwrap();
        let line = |at: u32, device: &str, progress: &str| {
            let job = format!(
                r#""job":"01","goal":{{"kind":"rotate","slot":"A","algorithm":"ECDSA-P256"}},"progress":"{progress}""#
            );
            format!(r#"{{"at":{at},"device":"{device}","connected":true,"leaf":null,{job}}}"#)
        };
        let files = ["a", "b"].map(|name| directory.path().join(name));
        let mine = format!("{}\n{}\n", line(1, "a", "accepted"), line(3, "a", "committed"));
        std::fs::write(&files[0], mine).unwrap();
        std::fs::write(&files[1], line(2, "b", "trial-over")).unwrap();
        let steps = steps(files.iter().map(std::path::PathBuf::as_path)).unwrap();
        let told: Vec<_> = steps.iter().map(|step| (step.at, step.busy())).collect();
        assert_eq!(told, [(1, true), (2, true), (3, false)]);
    }

    #[test]
    fn an_enrolment_counts_against_no_limit() {
        let step = Step {
            at: 1,
            device: "a".to_owned(),
            connected: true,
            leaf: None,
            job: Some("01".to_owned()),
            goal: Some(Goal {
                kind: "enrol".to_owned(),
            }),
            progress: Some(Progress::Trial),
        };
        assert!(!step.busy() && step.counted().is_none());
    }
}
