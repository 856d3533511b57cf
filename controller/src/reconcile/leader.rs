//! Leader election by a Lease (coordination.k8s.io): one process does a part of the work, the others wait.
//!
//! The Lease keeps two controllers from working side by side; what makes it safe is the ledger's epoch, which the leader takes
//! right after and which fences out a predecessor that has not noticed yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::provenance::Progress;
use crate::gate::Gate;

/// How long a Lease holds without a renewal, seconds. Followers measure it from when they saw the last renewal, by their own
/// clock.
const HOLDS_SECONDS: i32 = 15;
pub(super) const HOLDS: Duration = Duration::from_secs(15);
/// How often the leader renews, and the others look.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Without a renewal for this long the leader steps down: before anyone else may take over.
const GIVE_UP: Duration = Duration::from_secs(12);
/// For one request; two of them fit between giving up and the last renewal.
pub(super) const REQUEST: Duration = Duration::from_secs(4);

/// Leadership, as long as its [`gate`](Self::gate) is open.
pub struct Leadership {
    candidate: Arc<Candidate>,
    gate: Arc<Gate>,
    found: Progress,
    renewing: JoinHandle<()>,
}

/// Waits until this process leads. An API server that is gone is waited for.
///
/// # Errors
/// When this process may not use the Lease at all: its Role or its token is missing.
pub async fn acquire(
    client: kube::Client,
    namespace: &str,
    lease_name: &str,
    identity: &str,
) -> Result<Leadership, LeaseError> {
    let candidate = Candidate {
        leases: Api::namespaced(client, namespace),
        name: lease_name.to_owned(),
        identity: identity.to_owned(),
        labels: BTreeMap::new(),
        progress: watch::Sender::default(),
    };
    let mut seen = Seen::default();
    let (since, found) = loop {
        let asked = Instant::now();
        match candidate.attempt(&mut seen).await {
            Ok(Some(found)) => break (asked, found),
            Ok(None) => {}
            Err(LeaseError::Api(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                return Err(LeaseError::Refused(status.message.clone()));
            }
            Err(error) => tracing::warn!(%error, lease = lease_name, "cannot read or take the lease"),
        }
        tokio::time::sleep(PERIOD).await;
    };
    tracing::info!(lease = lease_name, identity, "leading");
    Ok(candidate.begin(since, found))
}

/// How far the ledger was by the Lease, whoever holds that.
///
/// # Errors
/// When the API server does not say.
pub async fn noted(client: kube::Client, namespace: &str, lease_name: &str) -> Result<Progress, LeaseError> {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let lease = tokio::time::timeout(REQUEST, leases.get_opt(lease_name)).await??;
    Ok(lease.as_ref().map(read).unwrap_or_default())
}

/// What is noted on a Lease.
fn read(lease: &Lease) -> Progress {
    lease
        .metadata
        .annotations
        .as_ref()
        .map(Progress::noted)
        .unwrap_or_default()
}

impl Leadership {
    /// Open as long as this process leads; whoever finds out otherwise closes it.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
    }

    /// How far the ledger was when the one before noted it last.
    pub const fn found(&self) -> &Progress {
        &self.found
    }

    /// Where to say how far the ledger is: soon it stands on the Lease.
    pub fn progress(&self) -> &watch::Sender<Progress> {
        &self.candidate.progress
    }

    /// Notes on the Lease how far the ledger is, before anything is done. An API server that is gone is waited for.
    ///
    /// # Errors
    /// When leadership is lost meanwhile.
    pub async fn note(&self, progress: Progress) -> Result<(), LeaseError> {
        self.candidate.progress.send_replace(progress);
        loop {
            match tokio::time::timeout(REQUEST, self.candidate.extend()).await {
                Ok(Ok(Extended::Renewed)) => return Ok(()),
                Ok(Ok(Extended::Taken)) => return Err(LeaseError::Lost),
                Ok(Ok(Extended::Overtaken)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot note the ledger on the lease"),
                Err(_) => tracing::warn!("the ledger could not be noted on the lease in time"),
            }
            if tokio::time::timeout(AGAIN, self.gate.closed()).await.is_ok() {
                return Err(LeaseError::Lost);
            }
        }
    }

    /// Resolves when leadership is lost: stop writing at once.
    pub async fn lost(&self) {
        self.gate.closed().await;
    }

    /// Gives the Lease up, so that another process can lead without waiting for its end.
    pub async fn release(self) {
        self.gate.close();
        self.renewing.abort();
        if let Err(error) = self.candidate.release().await {
            tracing::warn!(%error, "cannot release the lease; it runs out by itself");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.gate.close();
        self.renewing.abort();
    }
}

async fn renew(candidate: Arc<Candidate>, gate: Arc<Gate>, since: Instant) {
    let (mut renewed, mut wait) = (since, PERIOD);
    let mut moved = candidate.progress.subscribe();
    loop {
        // Sooner where the ledger has moved: what is not noted yet would not be missed in one that is put back.
        let pause = wait.min(GIVE_UP.saturating_sub(renewed.elapsed()));
        tokio::time::sleep(pause.min(AGAIN)).await;
        let _ = tokio::time::timeout(pause.saturating_sub(AGAIN), moved.changed()).await;
        moved.mark_unchanged();
        // Others count from the write, which may be long before its answer.
        let asked = Instant::now();
        let left = GIVE_UP.saturating_sub(renewed.elapsed());
        wait = match tokio::time::timeout(left, candidate.extend()).await {
            Ok(Ok(Extended::Renewed)) => {
                gate.prolong(asked + GIVE_UP);
                renewed = asked;
                PERIOD
            }
            Ok(Ok(Extended::Overtaken)) => AGAIN,
            Ok(Ok(Extended::Taken)) => {
                tracing::error!("another process has taken the lease");
                break;
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot renew the lease");
                AGAIN
            }
            Err(_) => {
                tracing::error!("the lease could not be renewed in time");
                break;
            }
        };
    }
    gate.close();
}

/// What a follower remembers of the Lease: its version, and when it first saw it, by its own clock.
#[derive(Default)]
struct Seen(Option<(String, Instant)>);

impl Seen {
    /// Whether nobody has touched the Lease for as long as it holds.
    fn idle(&mut self, version: &str, holds: Duration, now: Instant) -> bool {
        match &self.0 {
            Some((known, since)) if known == version => now.duration_since(*since) >= holds,
            _ => {
                self.0 = Some((version.to_owned(), now));
                false
            }
        }
    }
}

/// What came of a renewal.
enum Extended {
    /// The Lease holds anew.
    Renewed,
    /// It was written between reading and writing; by whom, the next look tells. It may have been this process: a renewal that
    /// was given up as unanswered arrives late.
    Overtaken,
    /// Another process holds it.
    Taken,
}

/// One Lease, and who would hold it.
pub(super) struct Candidate {
    pub(super) leases: Api<Lease>,
    pub(super) name: String,
    pub(super) identity: String,
    /// What it is found by among others.
    pub(super) labels: BTreeMap<String, String>,
    /// How far the ledger is, to be noted with each renewal.
    pub(super) progress: watch::Sender<Progress>,
}

/// Why the Lease cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server failed.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It did not answer.
    #[error("the API server did not answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    /// It refused for good.
    #[error("this process may not use its Lease: {0}")]
    Refused(String),
    /// Another process has it.
    #[error("the Lease was lost; another replica takes over")]
    Lost,
}

impl Candidate {
    /// Tries to take the Lease; answers what was noted on it when this process holds it now.
    async fn attempt(&self, seen: &mut Seen) -> Result<Option<Progress>, LeaseError> {
        let Some(lease) = tokio::time::timeout(REQUEST, self.leases.get_opt(&self.name)).await?? else {
            return Ok(self.create().await?.then(Progress::default));
        };
        let noted = read(&lease);
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let holds = spec
            .lease_duration_seconds
            .map_or(HOLDS, |s| Duration::from_secs(s.unsigned_abs().into()));
        let version = lease.metadata.resource_version.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !seen.idle(version, holds, Instant::now()) {
            return Ok(None);
        }
        Ok(self.replace_holder(lease).await?.then_some(noted))
    }

    /// Takes a Lease that was found like this (`None`: there is none), unless somebody was faster.
    pub(super) async fn take(self, found: Option<Lease>) -> Result<Option<Leadership>, LeaseError> {
        let asked = Instant::now();
        let taken = match found {
            Some(lease) => self.replace_holder(lease).await?,
            None => self.create().await?,
        };
        Ok(taken.then(|| self.begin(asked, Progress::default())))
    }

    /// Holds the Lease, which was taken at this time, from now on.
    fn begin(self, since: Instant, found: Progress) -> Leadership {
        let candidate = Arc::new(self);
        let gate = Gate::open_until(since + GIVE_UP);
        let renewing = tokio::spawn(renew(Arc::clone(&candidate), Arc::clone(&gate), since));
        Leadership {
            candidate,
            gate,
            found,
            renewing,
        }
    }

    async fn create(&self) -> Result<bool, LeaseError> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels.clone()).filter(|labels| !labels.is_empty()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(None, 0)),
        };
        let params = PostParams::default();
        conflict_is_false(tokio::time::timeout(REQUEST, self.leases.create(&params, &lease)).await?)
    }

    async fn replace_holder(&self, lease: Lease) -> Result<bool, LeaseError> {
        let spec = lease.spec.clone().unwrap_or_default();
        let another = spec.holder_identity.as_deref() != Some(&self.identity);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let transitions = transitions.saturating_add(i32::from(another));
        self.replace(lease, self.spec(None, transitions)).await
    }

    /// Renews the Lease, if this process still holds it.
    async fn extend(&self) -> Result<Extended, LeaseError> {
        let lease = tokio::time::timeout(REQUEST, self.leases.get(&self.name)).await??;
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(Extended::Taken);
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        let written = self.replace(lease, self.spec(spec.acquire_time, transitions)).await?;
        Ok(if written {
            Extended::Renewed
        } else {
            Extended::Overtaken
        })
    }

    async fn release(&self) -> Result<(), LeaseError> {
        let lease = tokio::time::timeout(REQUEST, self.leases.get(&self.name)).await??;
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() == Some(&self.identity) {
            let free = LeaseSpec {
                holder_identity: None,
                lease_duration_seconds: Some(1),
                ..spec
            };
            self.replace(lease, free).await?;
        }
        Ok(())
    }

    /// Writes on the condition that nobody wrote since the read.
    async fn replace(&self, mut lease: Lease, spec: LeaseSpec) -> Result<bool, LeaseError> {
        lease.spec = Some(spec);
        let progress = self.progress.borrow().clone();
        // Before the first epoch of this process, what another one noted stays.
        if progress != Progress::default() {
            progress.note(lease.metadata.annotations.get_or_insert_default());
        }
        let params = PostParams::default();
        let write = self.leases.replace(&self.name, &params, &lease);
        conflict_is_false(tokio::time::timeout(REQUEST, write).await?)
    }

    fn spec(&self, acquired: Option<MicroTime>, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(HOLDS_SECONDS),
            lease_transitions: Some(transitions),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}

fn conflict_is_false(result: kube::Result<Lease>) -> Result<bool, LeaseError> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_idle_only_after_its_whole_time_without_a_change() {
        let mut seen = Seen::default();
        let start = Instant::now();
        assert!(!seen.idle("1", HOLDS, start));
        assert!(!seen.idle("1", HOLDS, start + Duration::from_millis(14_999)));
        assert!(!seen.idle("2", HOLDS, start + HOLDS), "a renewal starts the wait anew");
        assert!(seen.idle("2", HOLDS, start + HOLDS * 2));
    }
}
