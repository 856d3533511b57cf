//! What a CA's status says of its CRLs, of the clock that they are dated by, and of the ledger that they are made from.

use certwave_crds::{CertificateAuthority, CertificateAuthorityStatus, CrlObject, CrlStatus};
use certwave_pki::KeyId;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use super::AuthorityState;
use crate::publish::{Stamp, Trouble, Watched};
use crate::reconcile::shared::Shared;
use crate::reconcile::status::{CLOCK_SKEW, Verdict, shorten, skew};
use crate::reconcile::time::time;

/// Whether what is served of its CRLs is in order.
pub(super) const CRL_FRESH: &str = "CRLFresh";
/// Whether OCSP answers, where certificates say that it does.
pub(super) const OCSP_FRESH: &str = "OCSPFresh";
/// Whether the ledger comes from a backup and does not know yet what was revoked since.
const LEDGER_RESTORED: &str = "LedgerRestored";
/// Whether its CRLs no longer fit the object that they are written into.
const TOO_LARGE: &str = "CrlTooLargeForConfigMap";
/// As many CRLs as the status shows: those that end last.
const SHOWN: usize = 50;
/// An event's note may have 1 KiB.
const NOTE: usize = 1000;

/// The CA's key id: of one that is not ready, as it was.
fn key_id(object: &CertificateAuthority, state: &AuthorityState) -> Option<String> {
    match state {
        AuthorityState::Ready(authority) => Some(KeyId::to_string(authority.entry.ca.key_id())),
        AuthorityState::NotReady(_) => object.status.as_ref()?.key_id.clone(),
    }
}

/// The CRLs to show, newest partitions first: as published last.
pub(super) fn shown(shared: &Shared, object: &CertificateAuthority, state: &AuthorityState) -> Vec<CrlStatus> {
    let Some(key_id) = key_id(object, state) else {
        return Vec::new();
    };
    if shared.is_restored() {
        // What was published is more than the backup knows.
        return object
            .status
            .as_ref()
            .map(|status| status.crls.clone())
            .unwrap_or_default();
    }
    let mut scopes = shared.publisher.scopes(&key_id);
    scopes.reverse();
    let one = |(partition, stamp): (String, Stamp)| CrlStatus {
        partition,
        number: i64::try_from(stamp.number).unwrap_or(i64::MAX),
        next_update: Some(time(stamp.next_update)),
        entries: Some(i64::try_from(stamp.entries).unwrap_or(i64::MAX)),
    };
    scopes.into_iter().take(SHOWN).map(one).collect()
}

/// The object that holds them, too: as seen, or by the status until it was looked at.
pub(super) fn object(shared: &Shared, object: &CertificateAuthority) -> Option<CrlObject> {
    match shared.export(&super::name(object)) {
        Some(export) => export.object,
        None => object.status.as_ref()?.crl_object.clone(),
    }
}

/// The conditions beside `Ready`.
pub(super) fn aspects(
    shared: &Shared,
    object: &CertificateAuthority,
    state: &AuthorityState,
) -> Vec<(&'static str, Verdict)> {
    let mut aspects = Vec::new();
    if let Some(key_id) = key_id(object, state) {
        let publishes = match state {
            AuthorityState::Ready(authority) => authority.entry.ca.publication().is_some(),
            AuthorityState::NotReady(_) => object.spec.publication.is_some() || shared.publication_base.is_some(),
        };
        if publishes {
            aspects.push((CRL_FRESH, fresh(shared.monitor.watched(&key_id).as_deref())));
        }
        if publishes && super::signer::wanted(shared, object) {
            aspects.push((OCSP_FRESH, answered(shared.monitor.answered(&key_id))));
        }
    }
    if super::export::target(object).is_some()
        && let Some(verdict) = shared.export(&super::name(object)).and_then(|export| export.too_large)
    {
        aspects.push((TOO_LARGE, verdict));
    }
    aspects.push((CLOCK_SKEW, skew(shared.publisher.clock())));
    aspects.push((LEDGER_RESTORED, restored(shared.recovery())));
    aspects
}

/// The worst of what is served. A CRL that nobody can get is as bad as one that has ended.
fn fresh(watched: Option<&[Watched]>) -> Verdict {
    let Some(watched) = watched.filter(|watched| !watched.is_empty()) else {
        return Verdict::unknown("NotReadYet", "the CRLs have not been read back yet");
    };
    let trouble: Vec<_> = watched.iter().filter_map(|w| w.trouble.as_ref()).collect();
    match trouble.split_first() {
        None => Verdict::yes("Fresh", "every CRL is served, signed, in time and up to date"),
        Some((first, [])) => Verdict::no(first.reason, first.message.clone()),
        Some((first, rest)) => Verdict::no(first.reason, format!("{} (and {} more)", first.message, rest.len())),
    }
}

fn answered(answer: Option<std::result::Result<(), Trouble>>) -> Verdict {
    match answer {
        None => Verdict::unknown("NotAskedYet", "OCSP has not been asked yet"),
        Some(Ok(())) => Verdict::yes("Answers", "OCSP answers, signed and in time"),
        Some(Err(trouble)) => Verdict::no(trouble.reason, trouble.message),
    }
}

fn restored(missing: Option<String>) -> Verdict {
    match missing {
        Some(missing) => Verdict::yes(
            "TakingIn",
            format!(
                "the ledger was restored from a backup; nothing is issued and no CRL made until what came since is taken in \
                 again. Still missing: {missing}"
            ),
        ),
        None => Verdict::no("Complete", "the ledger knows all that was issued and revoked"),
    }
}

/// What people are told when conditions turn: type, reason and note of events.
fn turned(before: &[Condition], now: &[Condition]) -> Vec<(EventType, String, String)> {
    let of = |all: &[Condition], kind: &str, status: &str| {
        let found = all.iter().find(|c| c.type_ == kind && c.status == status);
        found.map(|c| (c.reason.clone(), c.message.clone()))
    };
    let mut events = Vec::new();
    // What is served is no longer in order, or by another fault than before.
    for (kind, what) in [(CRL_FRESH, "CRL"), (OCSP_FRESH, "OCSP")] {
        if let Some((reason, message)) = of(now, kind, "False")
            && of(before, kind, "False").is_none_or(|(same, _)| same != reason)
        {
            events.push((EventType::Warning, format!("{what}{reason}"), message));
        }
    }
    let restored = of(before, LEDGER_RESTORED, "True").is_some();
    if let Some((_, message)) = of(now, LEDGER_RESTORED, "True")
        && !restored
    {
        events.push((EventType::Warning, LEDGER_RESTORED.to_owned(), message));
    }
    if let Some((_, message)) = of(now, LEDGER_RESTORED, "False")
        && restored
    {
        events.push((EventType::Normal, "LedgerRecovered".to_owned(), message));
    }
    events
}

/// Events where conditions have turned.
pub(super) async fn tell(shared: &Shared, object: &CertificateAuthority, now: &CertificateAuthorityStatus) {
    let before = object.status.as_ref().map(|status| status.conditions.as_slice());
    for event in turned(before.unwrap_or_default(), &now.conditions) {
        say(shared, object, event).await;
    }
}

async fn say(shared: &Shared, object: &CertificateAuthority, (type_, reason, message): (EventType, String, String)) {
    let reporter = Reporter {
        controller: "certwave".to_owned(),
        instance: None,
    };
    let event = Event {
        type_,
        reason,
        note: Some(shorten(&message, NOTE)),
        action: "Publish".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(shared.client.clone(), reporter);
    if let Err(error) = recorder.publish(&event, &object.object_ref(&())).await {
        tracing::warn!(%error, "an event cannot be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_of_a_restored_ledger_once_and_of_its_recovery_once() {
        let missing = Some("the CRL ca".to_owned());
        let of = |missing: Option<String>| {
            vec![crate::reconcile::status::condition(
                LEDGER_RESTORED,
                &restored(missing),
                None,
                &[],
                0,
            )]
        };
        let reasons = |before: &[Condition], now: &[Condition]| {
            let events = turned(before, now).into_iter();
            events.map(|(_, reason, _)| reason).collect::<Vec<_>>()
        };
        let (bad, good) = (of(missing), of(None));
        assert_eq!(reasons(&[], &bad), ["LedgerRestored"]);
        assert_eq!(reasons(&good, &bad), ["LedgerRestored"]);
        assert_eq!(reasons(&bad, &good), ["LedgerRecovered"]);
        for (before, now) in [(&bad, &bad), (&good, &good), (&vec![], &good)] {
            assert!(reasons(before, now).is_empty());
        }
    }

    #[test]
    fn one_crl_that_is_not_in_order_is_enough() {
        let watched = |trouble| Watched {
            scope: "ca".to_owned(),
            served: None,
            trouble,
        };
        let bad = Trouble {
            reason: "Expired",
            message: "x".to_owned(),
        };
        assert_eq!(fresh(None).holds, None);
        assert_eq!(fresh(Some(&[watched(None)])).holds, Some(true));
        let verdict = fresh(Some(&[watched(None), watched(Some(bad.clone())), watched(Some(bad))]));
        assert_eq!((verdict.holds, verdict.reason.as_str()), (Some(false), "Expired"));
        assert!(verdict.message.ends_with("(and 1 more)"), "{}", verdict.message);
    }
}
