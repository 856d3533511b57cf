//! `mode: Preview`: what would happen, and nothing else.

use certwave_core::rollout::plan::PlanError;
use certwave_core::rollout::run::{Run, WaveCounts};
use certwave_crds::{FailureExample, PlanStatus, Rotation, RotationPhase, RotationReason};
use kube::runtime::controller::Action;

use super::super::error::Result;
use super::super::time::{now_ms, now_s, time, time_ms};
use super::view::Observed;
use super::{MANAGER, Rotations, Stored, WAITING, cutoff, draft, fit, invalid_plan, outlook, publish, scope, view};

impl Rotations {
    /// Plans over the fleet as it is now and shows the result; the ledger is only read.
    pub(super) async fn preview(&self, object: &Rotation) -> Result<Action> {
        let needs = match self.needs(object) {
            Ok(needs) => needs,
            Err(verdict) => return self.show(object, &Observed::waiting(verdict)).await,
        };
        let (strategy, calendar) = match self.strategy(object) {
            Ok(found) => found,
            Err(verdict) => return self.show(object, &Observed::waiting(verdict)).await,
        };
        let now = now_ms();
        let scope = scope(object, &needs, &strategy, now);
        let ledger = &*self.shared.ledger;
        let drafted = draft::draft(ledger, &needs.fleet.key, now, &strategy, &scope, fit(object)).await?;
        let draft = match drafted {
            Ok(draft) => draft,
            Err(error @ PlanError::Nobody) => {
                let verdict = invalid_plan(&error);
                self.show(object, &Observed::waiting(verdict)).await?;
                return Ok(Action::requeue(WAITING));
            }
            Err(error) => return self.show(object, &Observed::waiting(invalid_plan(&error))).await,
        };
        let waves: Vec<_> = draft
            .plan
            .waves
            .iter()
            .map(|wave| WaveCounts {
                members: wave.size,
                planned: wave.size,
                ..WaveCounts::default()
            })
            .collect();
        let fleet = &needs.fleet.key;
        let about = outlook::About {
            strategy: &strategy,
            calendar: &calendar,
            plan: &draft.plan,
            run: &Run::default(),
            remaining: &draft.ends,
            succeeded: 0,
            counts: ledger.counts(fleet, outlook::count(&strategy, now)).await?,
            cutoff: cutoff(object),
        };
        let mut outlook = outlook::outlook(now, &about);
        outlook.without_window = draft.without_window;
        let late = (outlook.missed as usize).min(draft.first.len());
        outlook.names = draft.first[..late.min(5)].to_vec();
        let plan = PlanStatus {
            hash: Some(draft.plan.hash.clone()),
            eta: outlook.eta.map(time_ms),
            needed_per_minute: outlook.needed_per_minute.into(),
            missed: outlook.missed.into(),
            first_missed: outlook.first_missed.map(time),
            windows: outlook.windows.clone(),
            without_window: outlook.without_window.into(),
        };
        let run = Run::default();
        let observed = Observed {
            over: Some(RotationPhase::Previewed),
            stored: Some(Stored {
                plan: &draft.plan,
                run: &run,
            }),
            waves: &waves,
            outlook: Some(outlook),
            preview: Some(plan),
            ..Observed::default()
        };
        let mut status = view::status(object, &observed, now_s());
        for wave in &mut status.waves {
            wave.phase = certwave_crds::WavePhase::Pending;
        }
        if object.spec.reason == RotationReason::CaCompromise {
            // Whoever sets a cutoff sees first whom it would cut off.
            status.examples = draft
                .first
                .iter()
                .map(|device| FailureExample {
                    device_id: device.clone(),
                    code: "not-confirmed".to_owned(),
                    message: Some("has no certificate of the new CA yet".to_owned()),
                })
                .collect();
        }
        let api = self.shared.api(&needs.fleet.key.namespace);
        publish(&api, object, MANAGER, object.status.as_ref(), &status).await?;
        Ok(Action::await_change())
    }
}
