//! `preview`: what a rotation would do.

use std::time::Duration;

use certwave_crds::{FailureExample, Fleet, PlanStatus, Rotation, RotationPhase, RotationStatus, WaveStatus};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde::Serialize;

use super::rotate::{self, Draft, Mode};
use super::wait::until;
use crate::output::{self, OutputArgument, Show, Table, say};
use crate::session::Session;
use crate::time::{exact, from_now};
use crate::{Error, Result, judge, progress};

/// A plan over a large fleet takes a while.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// `preview`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    draft: Draft,
    /// Keep the Rotation that planned it (mode: Preview), to look at its status.
    #[arg(long)]
    keep: bool,
    /// How long to wait for the plan, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE.as_secs())]
    timeout: u64,
    #[command(flatten)]
    output: OutputArgument,
}

/// What a rotation would do.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    /// The Rotation that planned it.
    rotation: String,
    fleet: String,
    waves: Vec<WaveStatus>,
    plan: PlanStatus,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    examples: Vec<FailureExample>,
    #[serde(skip)]
    now: Timestamp,
}

impl Planned {
    fn of(rotation: &Rotation, now: Timestamp) -> Self {
        let status = rotation.status.clone().unwrap_or_default();
        Self {
            rotation: rotation.name_any(),
            fleet: rotation.spec.fleet_ref.name.clone(),
            waves: status.waves,
            plan: status.plan.unwrap_or_default(),
            examples: status.examples,
            now,
        }
    }

    /// How many devices would get new certificates.
    pub(super) fn devices(&self) -> i64 {
        self.waves.iter().map(|wave| wave.planned).sum()
    }

    /// In how many waves.
    pub(super) fn waves(&self) -> i64 {
        let waves = self.waves.iter().filter(|wave| wave.planned > 0);
        i64::try_from(waves.count()).unwrap_or(i64::MAX)
    }
}

impl Show for Planned {
    fn table(&self, wide: bool) -> String {
        let mut table = Table::new(["WAVE", "NAME", "DEVICES", "MAY-FAIL", "MAY-BE-LOST"]);
        for (number, wave) in self.waves.iter().enumerate() {
            let numbers = [wave.planned, wave.max_failed, wave.max_lost].map(|n| n.to_string());
            table.row([(number + 1).to_string(), wave.name.clone()].into_iter().chain(numbers));
        }
        let plan = &self.plan;
        let mut lines = vec![format!(
            "{} of {}; nothing was changed.",
            output::count(self.devices(), "device"),
            self.fleet
        )];
        if let Some(eta) = &plan.eta {
            lines.push(format!(
                "Over {} ({}), if all goes well.",
                from_now(Some(eta), self.now),
                exact(Some(eta))
            ));
        }
        for window in &plan.windows {
            let (opens, closes) = (exact(Some(&window.opens)), exact(Some(&window.closes)));
            lines.push(format!("Window from {opens} to {closes}."));
        }
        if plan.without_window > 0 {
            lines.push(format!(
                "{} devices are selected by no window: they wait until shortly before their certificates end.",
                plan.without_window
            ));
        }
        if plan.missed > 0 {
            lines.push(format!(
                "TOO SLOW: the certificates of {} devices end before their turn, the first {}; {} a minute would do.",
                plan.missed,
                from_now(plan.first_missed.as_ref(), self.now),
                plan.needed_per_minute
            ));
        }
        if !self.examples.is_empty() {
            let names: Vec<_> = self.examples.iter().map(|example| example.device_id.as_str()).collect();
            lines.push(format!("Not on the new CA, and ending first: {}.", names.join(", ")));
        }
        if wide && let Some(hash) = &plan.hash {
            lines.push(format!("Plan {hash}."));
        }
        format!("{}{}\n", table.text(), lines.join("\n"))
    }

    fn names(&self) -> Vec<String> {
        vec![output::name_of("Rotation", &self.rotation)]
    }
}

/// `preview`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let fleet: Fleet = session.api().get(arguments.draft.fleet()).await?;
    let patience = Duration::from_secs(arguments.timeout);
    let planned = if arguments.keep {
        let rotation = create(session, &arguments.draft, &fleet).await?;
        let planned = planned(session, &rotation, patience).await?;
        say(&format!(
            "kept as {}",
            output::name_of("Rotation", &rotation.name_any())
        ));
        planned
    } else {
        plan(session, &arguments.draft, &fleet, patience).await?
    };
    output::show(&planned, arguments.output.format)
}

/// Plans by a Rotation that is deleted again, whatever comes of it.
pub(super) async fn plan(session: &Session, draft: &Draft, fleet: &Fleet, patience: Duration) -> Result<Planned> {
    let rotation = create(session, draft, fleet).await?;
    let name = rotation.name_any();
    let planned = tokio::select! {
        planned = planned(session, &rotation, patience) => planned,
        _ = tokio::signal::ctrl_c() => Err(Error::Declined("interrupted".to_owned())),
    };
    if let Err(error) = session.api::<Rotation>().delete(&name, &DeleteParams::default()).await {
        let error = Error::from(error);
        say(&format!(
            "note: the preview Rotation {name} stays, as it could not be deleted ({error}); it changes nothing"
        ));
    }
    planned
}

async fn create(session: &Session, draft: &Draft, fleet: &Fleet) -> Result<Rotation> {
    let spec = draft.spec(fleet, Mode::Preview)?;
    let object = rotate::object(&spec, None, &format!("{}-preview", draft.fleet()))?;
    Ok(session.api::<Rotation>().create(&session.post().await, &object).await?)
}

/// Waits for the plan.
async fn planned(session: &Session, rotation: &Rotation, patience: Duration) -> Result<Planned> {
    let (rotations, name) = (session.api::<Rotation>(), rotation.name_any());
    let look = || {
        let (rotations, name) = (rotations.clone(), name.clone());
        async move { Ok(rotations.get(&name).await?) }
    };
    let mut last = None;
    let found = until(patience, look, |rotation: Rotation| {
        let status = rotation.status.clone().unwrap_or_default();
        if let Some(why) = refusal(&status) {
            return Err(Error::Refused(why));
        }
        last = judge::condition(&status.conditions, "Complete").map(|c| format!("{}: {}", c.reason, c.message));
        let over = progress::phase(rotation.status.as_ref()) == RotationPhase::Previewed;
        Ok(over.then(|| Planned::of(&rotation, Timestamp::now())))
    });
    match found.await? {
        Some(planned) => Ok(planned),
        None => Err(Error::Unreachable(last.map_or_else(
            || "no controller has planned it; `kubectl certwave doctor` says whether one is running".to_owned(),
            |why| format!("there is no plan yet: {why}"),
        ))),
    }
}

/// What a person has to mend before there is a plan.
fn refusal(status: &RotationStatus) -> Option<String> {
    let planned = judge::condition(&status.conditions, "Planned").filter(|c| c.status == "False")?;
    Some(format!("{}: {}", planned.reason, planned.message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_plan_that_is_too_slow_says_how_fast_would_do() {
        let rotation: Rotation = serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": {"name": "p"}, "spec": {"fleetRef": {"name": "meters"}},
            "status": {"phase": "Previewed", "waves": [{"name": "canary", "phase": "Pending", "planned": 2}, {"name": "rest", "phase": "Pending", "planned": 135, "maxFailed": 6}],
                "plan": {"missed": 12, "firstMissed": "2026-11-23T12:00:00Z", "neededPerMinute": 40}},
        }))
        .unwrap();
        let planned = Planned::of(&rotation, "2026-11-21T12:00:00Z".parse().unwrap());
        let text = planned.table(false);
        assert_eq!((planned.devices(), planned.waves()), (137, 2));
        assert!(
            text.contains("12 devices end before their turn, the first in 2d; 40 a minute would do"),
            "{text}"
        );
        assert!(text.contains("nothing was changed"));
    }

    #[test]
    fn a_plan_that_cannot_be_is_told_by_its_reason() {
        let condition = json!({"type": "Planned", "status": "False", "reason": "InvalidPlan", "message": "wave canary wants 5",
            "lastTransitionTime": "2026-11-21T12:00:00Z"});
        let status: RotationStatus = serde_json::from_value(json!({ "conditions": [condition] })).unwrap();
        assert_eq!(refusal(&status).unwrap(), "InvalidPlan: wave canary wants 5");
        assert_eq!(refusal(&RotationStatus::default()), None);
    }
}
