//! `Revocation`: previewed, recorded in batches, followed until everybody has heard, released.
//!
//! `subject` says whom one is about, `record` carries it out, `view` makes the status. What was done stands in the ledger: marks
//! may be made again without harm, so a restart begins from the front and finds less to do.

mod record;
mod subject;
mod view;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certwave_core::model::ObjectRef;
use certwave_crds::{CertificateAuthority, Fleet, Revocation, RevocationMode, RevocationPhase};
use certwave_ledger::RevocationProgress;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;

use super::drive::{Reconciler, name};
use super::error::Result;
use super::shared::Shared;
use super::status::{Verdict, publish};
use super::time::{now_ms, now_s};
use record::Cursor;
use subject::{Plan, Subject};
use view::{Doors, Observed};

const MANAGER: &str = "certwave-revocation";
/// How often a preview is counted anew,
const PREVIEWED: Duration = Duration::from_secs(30);
/// what cannot begin is looked at again,
const WAITING: Duration = Duration::from_secs(5);
/// and what is recorded is followed until everybody has heard;
const FOLLOWING: Duration = Duration::from_secs(1);
/// less often once that has taken long.
const FOLLOWING_LONG: Duration = Duration::from_secs(10);
/// What counts as long, seconds.
const LONG: i64 = 60;

/// The reconciler of `Revocation`.
pub(super) struct Revocations {
    shared: Arc<Shared>,
    store: Store<Revocation>,
    /// How far each that is being recorded is, by uid.
    cursors: Mutex<HashMap<String, Cursor>>,
}

impl Reconciler for Revocations {
    type Object = Revocation;
    const KIND: &'static str = "Revocation";

    async fn reconcile(&self, object: Arc<Revocation>) -> Result<Action> {
        let (own, uid) = (name(&*object), object.uid().unwrap_or_default());
        if self.uid(&own).is_some_and(|known| known != uid) {
            // Deleted, and another one of this name created, faster than the watch shows.
            self.forget(&own).await?;
        }
        let action = self.look_at(&object, &uid).await?;
        self.shared.revocations.set(&own, Some(uid));
        Ok(action)
    }

    /// What was revoked stays so; what is on hold is released.
    async fn forget(&self, object: &ObjectRef) -> Result<()> {
        if !self.shared.leads() {
            self.shared.revocations.set(object, None);
        } else if let Some(uid) = self.uid(object) {
            self.release(&uid, "controller", "the Revocation was deleted").await?;
            self.set_cursor(&uid, None);
            self.shared.revocations.set(object, None);
        }
        Ok(())
    }

    fn knows(&self, object: &ObjectRef) -> bool {
        self.uid(object).is_some()
    }

    fn is_mine(&self, object: &Revocation) -> bool {
        let leads = self.shared.leads();
        if !leads {
            // Statuses of devices name it.
            self.shared.revocations.set(&name(object), object.uid());
        }
        leads
    }
}

impl Revocations {
    pub(super) fn new(shared: Arc<Shared>, store: Store<Revocation>) -> Self {
        Self {
            shared,
            store,
            cursors: Mutex::default(),
        }
    }

    /// Releases what is held for objects that were deleted while nobody led. To be called once the list of objects is known.
    pub(super) async fn release_orphans(&self) -> Result<()> {
        let objects = self.store.state();
        for uid in self.shared.ledger.holding_revocations().await? {
            if objects.iter().any(|object| object.uid().as_deref() == Some(&uid)) {
                continue;
            }
            if self.shared.scope.is_some() {
                tracing::warn!(
                    uid,
                    "certificates are on hold for a Revocation that is not in this controller's namespace"
                );
                continue;
            }
            tracing::info!(
                uid,
                "a Revocation was deleted while nobody led; what it held is released"
            );
            let why = "the Revocation was deleted while nobody led";
            self.release(&uid, "controller", why).await?;
        }
        Ok(())
    }

    /// Of one that has been looked at since the start.
    fn uid(&self, object: &ObjectRef) -> Option<String> {
        Some((*self.shared.revocations.get(object)?).clone())
    }

    async fn look_at(&self, object: &Revocation, uid: &str) -> Result<Action> {
        if self.shared.is_restored() {
            return Ok(Action::requeue(WAITING));
        }
        let phase = object.status.as_ref().and_then(|status| status.phase);
        if phase == Some(RevocationPhase::Released) {
            return Ok(Action::await_change());
        }
        if object.spec.release {
            let (who, _) = super::author::last(&object.metadata, &["f:spec", "f:release"]);
            self.release(uid, &who, &detail(object)).await?;
            self.set_cursor(uid, None);
            return self.show(object, &Observed::released()).await;
        }
        match phase {
            Some(RevocationPhase::Complete | RevocationPhase::Released) => Ok(Action::await_change()),
            Some(RevocationPhase::Recorded) => self.follow(object, uid).await,
            Some(RevocationPhase::Running) => self.go_on(object, uid).await,
            Some(RevocationPhase::Invalid) if has_given_up(object) => Ok(Action::await_change()),
            Some(RevocationPhase::Ready | RevocationPhase::Invalid) | None => self.preview(object).await,
        }
    }

    /// Counts whom it is about, and begins if it may.
    async fn preview(&self, object: &Revocation) -> Result<Action> {
        let subject = match subject::resolve(&self.shared, object) {
            Ok(subject) => subject,
            Err(verdict) => {
                let verdict = self.unless_late(object, verdict).await?;
                return self.show(object, &Observed::invalid(verdict)).await;
            }
        };
        let plan = Plan::of(&*self.shared.ledger, &subject, now_s()).await?;
        let seen = object.spec.plan_hash.as_str();
        let another = !seen.is_empty() && seen != plan.hash;
        if object.spec.mode == RevocationMode::Preview || another {
            return self.show(object, &Observed::ready(plan, another)).await;
        }
        // First of all it is written that it has begun; the watch brings the object back.
        tracing::info!(
            revocation = object.name_any(),
            certificates = plan.certificates,
            "a revocation begins"
        );
        self.show(object, &Observed::running(Some(plan))).await
    }

    /// What is in the way of one that is to run. An object that is only not known here yet is waited for; one that does not exist is
    /// not: when somebody makes one of that name, perhaps in a year, nobody thinks of a forgotten Revocation.
    async fn unless_late(&self, object: &Revocation, verdict: Verdict) -> Result<Verdict> {
        if object.spec.mode != RevocationMode::Run || !is_missing(&verdict.reason) {
            return Ok(verdict);
        }
        let (spec, namespace) = (&object.spec, object.namespace().unwrap_or_default());
        let there = if let Some(ca) = spec.issuer_ref.as_ref().or(spec.certificate_authority.as_ref()) {
            let api = self.shared.api::<CertificateAuthority>(&namespace);
            api.get_metadata_opt(&ca.name).await?.is_some()
        } else if let Some(fleet) = &spec.fleet_ref {
            let api = self.shared.api::<Fleet>(&namespace);
            api.get_metadata_opt(&fleet.name).await?.is_some()
        } else {
            false
        };
        Ok(if there {
            Verdict::no("NotReadYet", "what it names has not been looked at yet")
        } else {
            let message = format!(
                "{}; it does not begin when there is one: delete it, and create it anew if it is still wanted then",
                verdict.message
            );
            Verdict::no(&verdict.reason, message)
        })
    }

    async fn go_on(&self, object: &Revocation, uid: &str) -> Result<Action> {
        match subject::resolve(&self.shared, object) {
            Ok(subject) => self.record_on(object, uid, &subject).await,
            Err(verdict) => self.show(object, &Observed::stuck(verdict)).await,
        }
    }

    async fn record_on(&self, object: &Revocation, uid: &str, subject: &Subject) -> Result<Action> {
        let over = self.record(object, uid, subject).await?;
        if over {
            self.set_cursor(uid, None);
            return self.follow(object, uid).await;
        }
        let progress = self.shared.ledger.revocation_progress(uid).await?;
        let observed = Observed::running(None).with(progress);
        self.show(object, &observed).await?;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Everything is in the ledger: whether everybody has heard.
    async fn follow(&self, object: &Revocation, uid: &str) -> Result<Action> {
        let at = self.shared.ledger.revocation_progress_at(uid).await?;
        let doors = Doors::of(&at, |broker| self.shared.abilities(broker));
        let doors = object.spec.certificate_authority.is_none().then_some(&doors);
        let progress: RevocationProgress = at.iter().map(|(_, progress)| *progress).sum();
        self.show(object, &Observed::recorded(progress, doors)).await
    }

    async fn show(&self, object: &Revocation, observed: &Observed) -> Result<Action> {
        let status = view::status(object, observed, now_s());
        let api = self.shared.api(&object.namespace().unwrap_or_default());
        publish(&api, object, MANAGER, object.status.as_ref(), &status).await?;
        Ok(match status.phase {
            Some(RevocationPhase::Complete | RevocationPhase::Released) => Action::await_change(),
            Some(RevocationPhase::Ready) => Action::requeue(PREVIEWED),
            Some(RevocationPhase::Invalid | RevocationPhase::Running) | None => Action::requeue(WAITING),
            Some(RevocationPhase::Recorded) => {
                let recorded = status.recorded_at.map_or(0, |at| at.0.as_second());
                Action::requeue(if now_s().saturating_sub(recorded) < LONG {
                    FOLLOWING
                } else {
                    FOLLOWING_LONG
                })
            }
        })
    }

    fn cursor(&self, uid: &str) -> Cursor {
        let cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        cursors.get(uid).copied().unwrap_or_default()
    }

    fn set_cursor(&self, uid: &str, cursor: Option<Cursor>) {
        let mut cursors = self.cursors.lock().unwrap_or_else(PoisonError::into_inner);
        match cursor {
            Some(cursor) => cursors.insert(uid.to_owned(), cursor),
            None => cursors.remove(uid),
        };
    }
}

/// What it names does not exist.
fn is_missing(reason: &str) -> bool {
    matches!(reason, "CANotFound" | "FleetNotFound")
}

/// Whether it could not begin, and is not looked at again until a person changes it.
fn has_given_up(object: &Revocation) -> bool {
    let Some(status) = &object.status else { return false };
    let complete = status.conditions.iter().find(|c| c.type_ == "Complete");
    object.spec.mode == RevocationMode::Run
        && status.observed_generation == object.metadata.generation
        && complete.is_some_and(|complete| is_missing(&complete.reason))
}

/// What the audit says of why.
fn detail(object: &Revocation) -> String {
    format!(
        "Revocation {}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

/// When it was asked for, and by whom.
fn asked(object: &Revocation) -> (String, i64) {
    let (who, when) = super::author::last(&object.metadata, &["f:spec", "f:mode"]);
    let now = now_ms();
    (who, when.unwrap_or(now).min(now))
}
