//! One step of a Rotation that has begun: judged, stored, handed to the engine, shown.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use certwave_core::rollout::gate;
use certwave_core::rollout::judge::{self, Action as Step, Gates as Said, Judgement, Note, Seen};
use certwave_core::rollout::run::{Breach, Ended, WaveCounts};
use certwave_core::rollout::strategy::Joiners;
use certwave_core::rollout::window::Calendar;
use certwave_crds::Rotation;
use certwave_ledger::{AuditEntry, Retry, Revert, RotationOutcome, RunWrite, StoredRotation, TemplateChange};
use kube::runtime::controller::Action;

use super::super::drive::name;
use super::super::error::Result;
use super::super::shared::Run as Running;
use super::super::status::{Verdict, skew};
use super::super::time::now_ms;
use super::view::Observed;
use super::{Needs, Rotations, automatic, cutoff, draft, fleet_key, people, precedence, scope};
use crate::gates::{Online, Subject};
use crate::metrics::{Forecast, Shown};
use crate::registry::RotationEntry;

/// How often members are compared with the fleet's devices, milliseconds.
const JOINING: i64 = 20_000;

impl Rotations {
    pub(super) async fn go_on(&self, object: &Rotation, uid: &str, mut stored: StoredRotation) -> Result<Action> {
        let (now, clock_turned) = self.shared.publisher.clock().now_and_turned();
        let own = name(object);
        if let Some((_, outcome)) = stored.ended {
            // A crash came between the end and its status.
            self.stop(uid, &own);
            stored.run.ended = Some(match outcome {
                RotationOutcome::Succeeded => Ended::Complete,
                RotationOutcome::Failed => Ended::Failed,
                RotationOutcome::Cancelled => Ended::Aborted,
            });
        }
        let needs = self.needs(object);
        let fault = match &needs {
            Ok(needs) => self.cut_off(needs),
            Err(verdict) => Some(verdict.clone()),
        };
        let other = precedence::before(object, &self.store);
        if let (Ok(needs), None) = (&needs, stored.run.ended) {
            self.come_after(uid, other.as_deref(), now).await?;
            if self.joining(uid, &stored, now) {
                self.join(object, uid, &mut stored, needs, now).await?;
            }
        }
        let ledger = &*self.shared.ledger;
        let waves = self.outlooks.counts(ledger, uid, stored.run.wave, now).await?;
        let verdicts = self.gates.verdicts(uid, &stored.record.strategy, &stored.run, now);
        let online = self.online_now(&stored, fault.is_none(), now).await?;
        let seen = Seen {
            waves: &waves,
            control: people::control(object),
            gates: if stored.record.strategy.gates.is_empty() {
                Said::Well
            } else {
                gate::together(&verdicts)
            },
            fault: fault.as_ref().map(|verdict| verdict.message.as_str()),
            ledger_out: self.shared.registry.ledger_was_out(),
            clock_turned,
            starting: self.starting(needs.as_ref().ok()),
            preempted_by: other.as_deref(),
            online: online.unwrap_or(0),
        };
        let judgement = judge::judge(now, &stored.record.strategy, &stored.record.plan, &stored.run, &seen);
        if let (Ok(needs), Some(Ended::Complete), None) = (&needs, judgement.run.ended, stored.run.ended)
            && self.join(object, uid, &mut stored, needs, now).await?
        {
            // Not over yet: somebody has come since members were compared last.
            return Ok(Action::requeue(Duration::ZERO));
        }
        let acted = self.carry_out(object, uid, &stored, &judgement, now).await?;
        let waves = if acted {
            self.outlooks.counts(ledger, uid, judgement.run.wave, now).await?
        } else {
            waves
        };
        stored.run = judgement.run.clone();
        self.teller.notes(object, &judgement.notes).await;
        self.hand_over(object, uid, &stored, needs.ok(), &judgement)?;
        if fault.is_none() && judgement.run.ended.is_none() {
            self.ask_gates(object, uid, &stored, &waves, online, now);
        }
        self.show_progress(object, &stored, &waves, &judgement, fault, now)
            .await
    }

    /// Why devices cannot be reached, or what they do cannot be judged, by a fault of ours.
    fn cut_off(&self, needs: &Needs) -> Option<Verdict> {
        let clock = self.shared.publisher.clock();
        if !clock.is_trusted() {
            let skew = skew(clock);
            return Some(Verdict::no(&skew.reason, skew.message));
        }
        let broker = &needs.fleet.broker;
        let link = self.shared.registry.link(broker);
        (!link.connected).then(|| {
            let why = link.error.unwrap_or_else(|| "it has not answered yet".to_owned());
            let words = format!("there is no connection to the broker {broker}: {why}");
            Verdict::no("BrokerNotConnected", words)
        })
    }

    /// Whether the broker has not been reached, or refused, since this process began.
    fn starting(&self, needs: Option<&Needs>) -> bool {
        needs.is_some_and(|needs| {
            let link = self.shared.registry.link(&needs.fleet.broker);
            !link.connected && link.error.is_none()
        })
    }

    async fn online_now(&self, stored: &StoredRotation, reachable: bool, now: i64) -> Result<Option<u32>> {
        // The broker says again who is there when the controller connects: before it has, nobody is known to be.
        if !self.outlooks.presence_settled(&stored.record.uid, reachable, now) {
            return Ok(None);
        }
        if !self.outlooks.count_online(&stored.record.uid, now) {
            return Ok(self.outlooks.online(&stored.record.uid));
        }
        let online = self.online(&stored.record.strategy, &stored.record.fleet).await?;
        self.outlooks.set_online(&stored.record.uid, online, now);
        Ok(online)
    }

    /// Another Rotation goes before this one, or has just gone: whoever it rotated needs no turn here.
    async fn come_after(&self, uid: &str, other: Option<&str>, now: i64) -> Result<()> {
        let waited = self.outlooks.preempted(uid, other.is_some());
        if waited && other.is_none() {
            self.shared.ledger.skip_renewed(self.shared.epoch, uid, now).await?;
        }
        Ok(())
    }

    /// Whether it is time to compare members with the fleet's devices.
    fn joining(&self, uid: &str, stored: &StoredRotation, now: i64) -> bool {
        let mut joined = self.joined.lock().unwrap_or_else(PoisonError::into_inner);
        let last = joined.entry(uid.to_owned()).or_insert(stored.record.started);
        let due = now < *last || now - *last >= JOINING;
        if due {
            *last = now;
        }
        due
    }

    /// Takes in devices that have come to the fleet, and gives up on members whose certificates have ended while they waited.
    /// Answers whether there are new members.
    async fn join(
        &self,
        object: &Rotation,
        uid: &str,
        stored: &mut StoredRotation,
        needs: &Needs,
        now: i64,
    ) -> Result<bool> {
        let (ledger, epoch) = (&*self.shared.ledger, self.shared.epoch);
        ledger.skip_expired(epoch, uid, now).await?;
        // A job that waited for its device from an earlier Rotation may have brought the new certificate.
        ledger.skip_renewed(epoch, uid, now).await?;
        let strategy = &stored.record.strategy;
        // What falls due while the last wave runs gets a Rotation of its own, with a canary: else this one might never end.
        let waves = stored.record.plan.waves.len();
        let late = automatic::made(object) && waves > 1 && stored.run.wave as usize + 1 >= waves;
        if strategy.joiners == Joiners::Ignore || late {
            return Ok(false);
        }
        let mut scope = scope(object, needs, strategy, now);
        if !automatic::made(object) && scope.not_of.is_none() {
            // What was issued since it began is new enough.
            scope.not_renewed = true;
        }
        let Some(draft) = draft::joiners(ledger, uid, now, strategy, &stored.record.plan, &scope).await? else {
            return Ok(false);
        };
        let mut write = RunWrite::of(stored.run.clone());
        write.plan = Some(draft.plan.clone());
        write.join = draft.members;
        ledger.write_run(epoch, uid, now, write).await?;
        stored.record.plan = draft.plan;
        Ok(true)
    }

    /// Stores what was decided, in one transaction. Answers whether members may have changed.
    async fn carry_out(
        &self,
        object: &Rotation,
        uid: &str,
        stored: &StoredRotation,
        judgement: &Judgement,
        now: i64,
    ) -> Result<bool> {
        if judgement.run == stored.run && judgement.actions.is_empty() || stored.ended.is_some() {
            return Ok(false);
        }
        let strategy = &stored.record.strategy;
        let mut write = RunWrite::of(judgement.run.clone());
        for action in &judgement.actions {
            match action {
                Step::Retry { through_wave, failed } => {
                    write.retry = Some(Retry {
                        through_wave: *through_wave,
                        failed: *failed,
                        reverted: true,
                    });
                }
                Step::Revert { wave } => {
                    write.revert = Some(Revert {
                        from_wave: *wave,
                        through_wave: *wave,
                        min_not_after_s: now.saturating_add(strategy.rollback_min_remaining).div_euclid(1000),
                        confirmed_after: now.saturating_sub(strategy.grace),
                    });
                }
                Step::Substitute { wave } => write.substitute = Some(*wave),
                Step::BlockTemplate => {
                    write.template = self
                        .template_of(object)
                        .map(|template| TemplateChange::Block { template });
                }
                Step::ClearTemplate => write.template = Some(TemplateChange::Clear),
            }
        }
        if judgement.run.ended == Some(Ended::Aborted) && automatic::made(object) {
            // Whoever stops one does not want the next a moment later.
            write.template = self
                .template_of(object)
                .map(|template| TemplateChange::Block { template });
        }
        write.end = judgement.run.ended.map(|ended| match ended {
            Ended::Complete => RotationOutcome::Succeeded,
            Ended::Failed => RotationOutcome::Failed,
            Ended::Aborted => RotationOutcome::Cancelled,
        });
        write.audit = judgement.notes.iter().map(|note| audit(object, note, now)).collect();
        self.shared.ledger.write_run(self.shared.epoch, uid, now, write).await?;
        Ok(true)
    }

    /// What its devices do when their old certificates are retired may show only now that the certificates are no good: then no
    /// other Rotation begins by itself with the same template.
    pub(super) async fn judge_late(&self, object: &Rotation, uid: &str) -> Result<()> {
        let (ledger, now) = (&*self.shared.ledger, now_ms());
        let Some(stored) = ledger.rotation(uid).await? else {
            return Ok(());
        };
        let (record, waves) = (&stored.record, ledger.wave_tallies(uid).await?);
        let late = judge::late_breach(&record.strategy, &record.plan, &stored.run, &waves);
        let Some(((wave, cause, detail), template)) = late.zip(self.template_of(object)) else {
            return Ok(());
        };
        let note = Note::Breached(Breach {
            wave,
            at: now,
            cause,
            detail: format!("{detail}, after the Rotation was complete"),
            rolling_back: false,
        });
        let line = audit(object, &note, now);
        if ledger
            .block_template(self.shared.epoch, uid, &template, now, line)
            .await?
        {
            self.teller.notes(object, &[note]).await;
        }
        Ok(())
    }

    /// What this Rotation issues by.
    fn template_of(&self, object: &Rotation) -> Option<String> {
        let fleet = fleet_key(object);
        let key = kube::runtime::reflector::ObjectRef::new(&fleet.name).within(&fleet.namespace);
        let fleet = self.fleets.get(&key)?;
        let issuer = object.spec.issuer_ref.as_ref().unwrap_or(&fleet.spec.issuer_ref);
        Some(automatic::template(&fleet, issuer))
    }

    fn hand_over(
        &self,
        object: &Rotation,
        uid: &str,
        stored: &StoredRotation,
        needs: Option<Needs>,
        judgement: &Judgement,
    ) -> Result<()> {
        let (own, registry) = (name(object), &self.shared.registry);
        if judgement.run.ended.is_some() {
            self.stop(uid, &own);
            return Ok(());
        }
        let Some(Needs { fleet, issuer }) = needs else {
            registry.set_waiting(uid, true);
            registry.set_rotation(uid.to_owned(), None);
            return Ok(());
        };
        let (issuer, anchor) = issuer.unzip();
        // No leaf of the new CA before its anchor is in the fleet's bundle, which the fleet's reconciler sees to next.
        let trusted = anchor
            .as_ref()
            .is_none_or(|anchor| fleet.anchors.iter().any(|der| der.0 == *anchor));
        self.shared.rotations.set(
            &own,
            Some(Running {
                fleet: fleet.key.clone(),
                anchor,
                in_time: self.outlooks.last(uid).map(|outlook| outlook.verdict()),
            }),
        );
        let before = registry.rotation(uid);
        let calendar = match &before {
            Some(entry) => Arc::clone(&entry.calendar),
            None => Arc::new(
                Calendar::compile(&stored.record.strategy.windows)
                    .map_err(|error| super::super::error::Error::Strategy(error.to_string()))?,
            ),
        };
        let strategy = match &before {
            Some(entry) => Arc::clone(&entry.strategy),
            None => Arc::new(stored.record.strategy.clone()),
        };
        let entry = RotationEntry {
            uid: uid.to_owned(),
            object: own,
            fleet: fleet.key.clone(),
            issuer,
            strategy,
            calendar,
            plan: stored.record.plan.clone(),
            run: judgement.run.clone(),
            admits: judgement.admits && trusted,
            reverts: judgement.reverts,
        };
        let same = before.is_some_and(|old| {
            let key = |e: &RotationEntry| e.issuer.as_ref().map(|issuer| issuer.ca.certificate_der().clone());
            (old.admits, old.reverts, &old.run, &old.plan) == (entry.admits, entry.reverts, &entry.run, &entry.plan)
                && key(&old) == key(&entry)
        });
        if !same {
            registry.set_rotation(uid.to_owned(), Some(entry));
        }
        registry.set_waiting(uid, false);
        Ok(())
    }

    fn ask_gates(
        &self,
        object: &Rotation,
        uid: &str,
        stored: &StoredRotation,
        waves: &[WaveCounts],
        online: Option<u32>,
        now: i64,
    ) {
        let wave = stored.run.wave;
        let own = name(object);
        let subject = Subject {
            namespace: own.namespace,
            rotation: own.name,
            fleet: object.spec.fleet_ref.name.clone(),
            wave,
            wave_name: stored
                .record
                .plan
                .waves
                .get(wave as usize)
                .map(|w| w.name.clone())
                .unwrap_or_default(),
            counts: waves.get(wave as usize).copied().unwrap_or_default(),
        };
        let online = online.map(|now| Online {
            before: stored.run.online_before,
            now,
        });
        self.gates.ask(uid, &stored.record.strategy, &subject, online, now);
    }

    /// Whether a window is open, or none is asked about.
    fn windows_open(&self, uid: &str, emergency: bool, now: i64) -> bool {
        let entry = self.shared.registry.rotation(uid);
        emergency || entry.is_none_or(|entry| entry.calendar.open(now) != 0)
    }

    /// Whether the fleet's broker says what its nodes have loaded; `true` while nobody knows which broker that is.
    fn reports_loading(&self, object: &Rotation) -> bool {
        let registry = &self.shared.registry;
        let fleet = registry.fleet(&fleet_key(object));
        fleet.is_none_or(|fleet| registry.reports_loading(&fleet.broker))
    }

    async fn show_progress(
        &self,
        object: &Rotation,
        stored: &StoredRotation,
        waves: &[WaveCounts],
        judgement: &Judgement,
        fault: Option<Verdict>,
        now: i64,
    ) -> Result<Action> {
        let (ledger, uid) = (&*self.shared.ledger, &stored.record.uid);
        let wrong = waves.iter().any(|w| w.failures() + w.vanished() + w.unreverted > 0);
        let examples = if wrong {
            ledger.rotation_examples(uid, super::EXAMPLES * 2).await?
        } else {
            Vec::new()
        };
        let outlook = if judgement.run.ended.is_none() {
            self.outlooks.of(ledger, stored, waves, cutoff(object), now).await?
        } else {
            None
        };
        let (strategy, run) = (&stored.record.strategy, &judgement.run);
        self.shared.metrics.rotations.show(&Shown {
            fleet: &stored.record.fleet,
            uid,
            name: &stored.record.object.name,
            reason: &stored.record.reason,
            plan: &stored.record.plan,
            judgement,
            counts: waves,
            gates: &self.gates.last_verdicts(uid, strategy, run),
            windows_open: self.windows_open(uid, strategy.emergency, now),
            forecast: outlook.as_ref().map(|outlook| Forecast {
                eta: outlook.eta,
                at_risk: outlook.missed,
                needed_per_minute: outlook.needed_per_minute,
            }),
        });
        let retirements = match stored.record.strategy.retiring {
            Some(_) => Some(ledger.retirement_counts(uid).await?),
            None => None,
        };
        let observed = Observed {
            judgement: Some(judgement),
            stored: Some(super::Stored {
                plan: &stored.record.plan,
                run: &judgement.run,
            }),
            waves,
            examples: &examples,
            outlook,
            fault,
            cannot_retire: retirements.is_some() && !self.reports_loading(object),
            retirements,
            ..Observed::default()
        };
        self.show(object, &observed).await
    }
}

/// One line of the audit for what happened, with who asked for it.
fn audit(object: &Rotation, note: &Note, now: i64) -> AuditEntry {
    let (who, what, detail) = match note {
        Note::WaveBegan(wave) => ("controller".to_owned(), "wave-began", format!("wave {}", wave + 1)),
        Note::Breached(breach) => {
            let detail = format!("wave {}: {}", breach.wave + 1, breach.detail);
            ("controller".to_owned(), "rotation-breached", detail)
        }
        Note::RolledBack(wave) => (
            "controller".to_owned(),
            "wave-rolled-back",
            format!("wave {}", wave + 1),
        ),
        Note::Resumed(word) => (people::who(object, "resume"), "rotation-resumed", word.clone()),
        Note::SentBack(word) => (people::who(object, "rollback"), "rotation-sent-back", word.clone()),
        Note::Retried(word) => (people::who(object, "retryFailed"), "rotation-retried", word.clone()),
        Note::Approved(waves) => (
            people::who(object, "approval"),
            "wave-approved",
            format!("through wave {waves}"),
        ),
        Note::Paused => (people::who(object, "state"), "rotation-paused", String::new()),
        Note::Continued => (people::who(object, "state"), "rotation-continued", String::new()),
        Note::Ended(Ended::Aborted) => (people::who(object, "state"), "rotation-aborted", String::new()),
        Note::Ended(Ended::Complete) => ("controller".to_owned(), "rotation-complete", String::new()),
        Note::Ended(Ended::Failed) => ("controller".to_owned(), "rotation-failed", String::new()),
    };
    let own = name(object);
    AuditEntry {
        at: now,
        who,
        what: what.to_owned(),
        identity: None,
        job: None,
        detail: Some(format!("{}/{} {detail}", own.namespace, own.name).trim_end().to_owned()),
    }
}
