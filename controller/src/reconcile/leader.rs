//! Leader election by a Lease (coordination.k8s.io): one process writes, the others wait.
//!
//! The Lease keeps two controllers from working side by side; what makes it safe is the ledger's epoch, which the leader takes
//! right after and which fences out a predecessor that has not noticed yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::task::JoinHandle;

use crate::gate::Gate;

/// How long a Lease holds without a renewal, seconds. Followers measure it from when they saw the last renewal, by their own
/// clock.
const HOLDS_SECONDS: i32 = 15;
const HOLDS: Duration = Duration::from_secs(15);
/// How often the leader renews, and the others look.
const PERIOD: Duration = Duration::from_secs(5);
/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Without a renewal for this long the leader steps down: before anyone else may take over.
const GIVE_UP: Duration = Duration::from_secs(12);
/// For one request; two of them fit between giving up and the last renewal.
const REQUEST: Duration = Duration::from_secs(4);

/// Leadership, as long as its [`gate`](Self::gate) is open.
pub struct Leadership {
    candidate: Arc<Candidate>,
    gate: Arc<Gate>,
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
    let candidate = Arc::new(Candidate {
        leases: Api::namespaced(client, namespace),
        name: lease_name.to_owned(),
        identity: identity.to_owned(),
    });
    let mut seen = Seen::default();
    let since = loop {
        let asked = Instant::now();
        match candidate.attempt(&mut seen).await {
            Ok(true) => break asked,
            Ok(false) => {}
            Err(LeaseError::Api(kube::Error::Api(status))) if matches!(status.code, 401 | 403) => {
                return Err(LeaseError::Refused(status.message.clone()));
            }
            Err(error) => tracing::warn!(%error, lease = lease_name, "cannot read or take the lease"),
        }
        tokio::time::sleep(PERIOD).await;
    };
    tracing::info!(lease = lease_name, identity, "leading");
    let gate = Gate::open_until(since + GIVE_UP);
    let renewing = tokio::spawn(renew(Arc::clone(&candidate), Arc::clone(&gate), since));
    Ok(Leadership {
        candidate,
        gate,
        renewing,
    })
}

impl Leadership {
    /// Open as long as this process leads; whoever finds out otherwise closes it.
    pub fn gate(&self) -> Arc<Gate> {
        Arc::clone(&self.gate)
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
    loop {
        tokio::time::sleep(wait.min(GIVE_UP.saturating_sub(renewed.elapsed()))).await;
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

struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
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
}

impl Candidate {
    /// Tries to take the Lease; `true` when this process holds it now.
    async fn attempt(&self, seen: &mut Seen) -> Result<bool, LeaseError> {
        let Some(lease) = tokio::time::timeout(REQUEST, self.leases.get_opt(&self.name)).await?? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None, 0)),
            };
            return conflict_is_false(
                tokio::time::timeout(REQUEST, self.leases.create(&PostParams::default(), &lease)).await?,
            );
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let holds = spec
            .lease_duration_seconds
            .map_or(HOLDS, |s| Duration::from_secs(s.unsigned_abs().into()));
        let version = lease.metadata.resource_version.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && !seen.idle(version, holds, Instant::now()) {
            return Ok(false);
        }
        let transitions = spec
            .lease_transitions
            .unwrap_or(0)
            .saturating_add(i32::from(holder != self.identity));
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
    async fn replace(&self, lease: Lease, spec: LeaseSpec) -> Result<bool, LeaseError> {
        let lease = Lease {
            spec: Some(spec),
            ..lease
        };
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
