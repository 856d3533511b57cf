//! What a device's status says of its revocation. Pure.

use std::collections::{BTreeMap, BTreeSet};

use certwave_core::model::{Credential, Device, Millis, ObjectRef};
use certwave_core::revocation::{Bar, Holder, Reason, Standing};
use certwave_crds::{
    CertificateStanding, DeviceRevocationStatus, NodeLoaded, RevocationCrl, RevocationReason, RevokedCertificate,
};
use certwave_ledger::{Author, Marked};

use crate::reconcile::status::{Verdict, shorten};
use crate::reconcile::time::{time, time_ms};

/// Certificates that a status shows.
const SHOWN: usize = 8;
/// Marks that are read: those of rotations are among them.
pub(super) const READ: u32 = 64;
/// Nodes that a status shows.
const NODES: usize = 32;

/// What the ledger has of a device's revocation.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// All of its marks, the last change first.
    marks: Vec<Marked>,
    /// Those of what was asked for last: all that is said of how far it is, is said of these. What a rotation has retired is never
    /// among them.
    pub(super) last: Vec<Marked>,
    /// When each node of its broker had loaded a CRL that says each of `last`.
    pub(super) loads: Vec<Vec<(String, Millis)>>,
    /// `Revocation`s by uid, as far as they are there.
    pub(super) names: BTreeMap<String, ObjectRef>,
}

impl Heard {
    /// What is to be shown of a device with these marks; `declared` where its object says something of a revocation. `None`: nothing.
    pub(super) fn of(marks: Vec<Marked>, bar: Option<Bar>, declared: bool) -> Option<Self> {
        let asked = || marks.iter().filter(|mark| mark.by_person());
        let newest = asked().map(|mark| mark.recorded_at).max();
        let stands = |mark: &&Marked| mark.standing != Standing::Good;
        let released = asked().any(|mark| !stands(&mark) && Some(mark.recorded_at) == newest);
        let standing = asked().filter(stands).map(|mark| mark.recorded_at).max();
        let last: Vec<Marked> = if bar.is_some() || declared && standing.is_some() {
            asked()
                .filter(stands)
                .filter(|mark| Some(mark.recorded_at) == standing)
                .cloned()
                .collect()
        } else if released {
            asked()
                .filter(|mark| !stands(mark) && Some(mark.recorded_at) == newest)
                .cloned()
                .collect()
        } else {
            return None;
        };
        Some(Self {
            marks,
            last,
            ..Self::default()
        })
    }

    /// The `Revocation`s that have a part in it, by uid.
    pub(super) fn revocations(&self) -> impl Iterator<Item = &str> {
        self.last.iter().flat_map(|mark| {
            let holders = mark.holders.iter().filter_map(|holder| match holder {
                Holder::Revocation(uid) => Some(uid.as_str()),
                Holder::Person | Holder::Retirement(_) => None,
            });
            let author = match &mark.author {
                Author::Revocation(uid) => Some(uid.as_str()),
                Author::Person | Author::Controller => None,
            };
            holders.chain(author)
        })
    }

    /// The Revocations by whose word it stands so, and whether the object's own is among those words.
    fn by(&self) -> (Vec<String>, bool) {
        let (mut uids, mut own) = (BTreeSet::new(), false);
        for mark in &self.last {
            match (&mark.standing, &mark.author) {
                (Standing::Held { .. }, _) => {
                    own |= mark.holders.contains(&Holder::Person);
                    uids.extend(mark.holders.iter().filter_map(|holder| match holder {
                        Holder::Revocation(uid) => Some(uid.as_str()),
                        Holder::Person | Holder::Retirement(_) => None,
                    }));
                }
                (_, Author::Revocation(uid)) => drop(uids.insert(uid.as_str())),
                (_, Author::Person) => own = true,
                (_, Author::Controller) => {}
            }
        }
        let name = |uid: &str| match self.names.get(uid) {
            Some(object) => format!("the Revocation {}/{}", object.namespace, object.name),
            None => format!("a Revocation that is gone ({uid})"),
        };
        (uids.into_iter().map(name).collect(), own)
    }
}

/// How far it is; `None` where nothing that was asked for met a certificate.
pub(super) fn status(heard: &Heard) -> Option<DeviceRevocationStatus> {
    let said = heard.last.first()?;
    let now = Progress::of(heard);
    let asked = heard.marks.iter().filter(|mark| mark.by_person());
    Some(DeviceRevocationStatus {
        hold: matches!(said.standing, Standing::Held { .. }),
        reason: reason(said.standing),
        requested_at: Some(time_ms(said.requested_at)),
        ledger_at: Some(time_ms(said.recorded_at)),
        crl: now.crl.map(|(number, at)| RevocationCrl {
            number: i64::try_from(number).unwrap_or(i64::MAX),
            at: time_ms(at),
        }),
        brokers: nodes(&heard.loads),
        shut_at: now.shut.map(time_ms),
        // Nothing is closed by a release.
        session_closed_at: now.closed.filter(|_| said.standing != Standing::Good).map(time_ms),
        certificates: asked.take(SHOWN).map(certificate).collect(),
    })
}

/// The condition `Revoked`; `None` where there is nothing to say.
pub(super) fn verdict(device: &Device, heard: &Heard) -> Option<Verdict> {
    let progress = Progress::of(heard);
    let (revocations, own) = heard.by();
    let by = if revocations.is_empty() {
        String::new()
    } else {
        format!(" by {}", revocations.join(" and "))
    };
    match device.bar {
        Some(Bar::Revoked) => {
            let reason = heard.last.iter().find_map(|mark| match mark.standing {
                Standing::Revoked { reason, .. } => Some(format!("{reason:?}")),
                _ => None,
            });
            let message = format!(
                "{}. It gets no certificate until a person gives a new spec.reenrol permit and a device uses that with a claim: whoever \
                 comes first, so suspend shared claims that a thief may hold before; to take spec.revocation out takes nothing back",
                progress.said(&format!("revoked{by}"), true)
            );
            Some(Verdict::yes(reason.as_deref().unwrap_or("Unspecified"), message))
        }
        Some(Bar::Held) => {
            let mut ways = Vec::new();
            if own || revocations.is_empty() {
                ways.push("take spec.revocation out".to_owned());
            }
            ways.extend(
                revocations
                    .iter()
                    .map(|name| format!("set spec.release of {name}, or delete it")),
            );
            let message = format!(
                "{}. To release it: {}",
                progress.said(&format!("on hold{by}"), true),
                ways.join("; and ")
            );
            Some(Verdict::yes("OnHold", message))
        }
        None if heard.last.iter().any(|mark| mark.standing != Standing::Good) => Some(Verdict::no(
            "OtherCertificates",
            format!(
                "the certificates named in status.revocation are {}; the device goes on with others",
                progress.said(&format!("refused{by}"), false)
            ),
        )),
        None => heard
            .last
            .first()
            .map(|_| Verdict::no("Released", format!("good again: {}", progress.said("released", false)))),
    }
}

/// How a certificate of the device stands, where it is not good.
pub(super) fn standing(credential: &Credential, heard: Option<&Heard>) -> Option<CertificateStanding> {
    let marks = heard?.marks.iter();
    let mut own = marks.filter(|m| m.key.serial == credential.serial && m.key.issuer == credential.issuer);
    match own.next()?.standing {
        Standing::Good => None,
        Standing::Held { .. } => Some(CertificateStanding::Held),
        Standing::Revoked { .. } => Some(CertificateStanding::Revoked),
    }
}

/// What holds for all that was said last.
struct Progress {
    certificates: usize,
    crl: Option<(u64, Millis)>,
    shut: Option<Millis>,
    closed: Option<Millis>,
}

impl Progress {
    fn of(heard: &Heard) -> Self {
        let marks = &heard.last;
        let all = |of: fn(&Marked) -> Option<Millis>| {
            let each: Option<Vec<_>> = marks.iter().map(of).collect();
            each?.into_iter().max()
        };
        let crls: Option<Vec<_>> = marks.iter().map(|mark| mark.crl).collect();
        Self {
            certificates: marks.len(),
            crl: crls.and_then(|all| all.into_iter().max_by_key(|(_, at)| *at)),
            shut: all(|mark| mark.shut_at),
            closed: all(|mark| mark.closed_at),
        }
    }

    /// How far, in words, and where to look if it stays there; with `out`, the device is to lose its session too.
    fn said(&self, what: &str, out: bool) -> String {
        if self.certificates == 0 {
            return format!("{what}; there was no certificate that had not ended");
        }
        let Some((number, _)) = self.crl else {
            return format!(
                "{what} in the ledger and by OCSP, not yet in a CRL: if that takes long, look at the conditions of the \
                 CertificateAuthority"
            );
        };
        match (self.shut, self.closed) {
            (Some(_), _) if !out => format!("{what}, by CRL {number}, at every node of the broker"),
            (Some(_), Some(_)) => format!("{what}, by CRL {number}, at every node of the broker; no session is left"),
            (Some(_), None) => {
                format!("{what}, by CRL {number}, at every node of the broker; the session is being closed")
            }
            (None, _) => format!(
                "{what} by CRL {number}; it is not known that every node of the broker goes by that: if that takes long, look at the \
                 condition DoorCurrent of the Broker"
            ),
        }
    }
}

/// Nodes that have loaded all of it, each with the time of the last.
fn nodes(loads: &[Vec<(String, Millis)>]) -> Vec<NodeLoaded> {
    let mut all: BTreeMap<&str, (usize, Millis)> = BTreeMap::new();
    for (node, at) in loads.iter().flatten() {
        let (times, last) = all.entry(node).or_insert((0, *at));
        *times += 1;
        *last = (*last).max(*at);
    }
    let whole = all.into_iter().filter(|(_, (times, _))| *times == loads.len());
    whole
        .take(NODES)
        .map(|(node, (_, at))| NodeLoaded {
            node: shorten(node, 253),
            loaded_at: time_ms(at),
        })
        .collect()
}

fn certificate(mark: &Marked) -> RevokedCertificate {
    let (state, since) = match mark.standing {
        Standing::Good => (CertificateStanding::Released, None),
        Standing::Held { since } => (CertificateStanding::Held, Some(since)),
        Standing::Revoked { since, .. } => (CertificateStanding::Revoked, Some(since)),
    };
    RevokedCertificate {
        issuer: mark.key.issuer.clone(),
        serial: mark.key.serial.clone(),
        state,
        reason: reason(mark.standing),
        since: since.map(time),
        crl: mark.crl.map(|(number, _)| i64::try_from(number).unwrap_or(i64::MAX)),
    }
}

fn reason(standing: Standing) -> Option<RevocationReason> {
    let Standing::Revoked { reason, .. } = standing else {
        return None;
    };
    Some(match reason {
        Reason::Unspecified | Reason::CertificateHold => RevocationReason::Unspecified,
        Reason::KeyCompromise => RevocationReason::KeyCompromise,
        Reason::CaCompromise => RevocationReason::CaCompromise,
        Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
        Reason::Superseded => RevocationReason::Superseded,
        Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use certwave_core::model::Identity;
    use certwave_ledger::SerialKey;

    use super::*;

    const NOW: Millis = 1_790_000_000_000;

    fn mark(serial: &str, standing: Standing, at: Millis) -> Marked {
        Marked {
            key: SerialKey {
                issuer: "aa".into(),
                serial: serial.into(),
            },
            fingerprint: None,
            identity: None,
            partition: "2026-12".into(),
            not_after: NOW / 1000 + 1000,
            standing,
            holders: if matches!(standing, Standing::Held { .. }) {
                vec![Holder::Person]
            } else {
                vec![]
            },
            author: Author::Person,
            change: 1,
            requested_at: at - 500,
            recorded_at: at,
            crl: None,
            shut_at: None,
            closed_at: None,
        }
    }

    fn revoked(serial: &str, at: Millis) -> Marked {
        let (since, reason) = (at / 1000, Reason::KeyCompromise);
        mark(serial, Standing::Revoked { since, reason }, at)
    }

    fn device(bar: Option<Bar>) -> Device {
        let id = Identity {
            broker: "b".parse().unwrap(),
            device: "pump-1".parse().unwrap(),
        };
        let object = ObjectRef {
            namespace: "n".into(),
            name: "pump-1".into(),
        };
        Device {
            bar,
            ..Device::declared(id, object, "pumps".into())
        }
    }

    fn heard(marks: Vec<Marked>, bar: Option<Bar>) -> Heard {
        Heard::of(marks, bar, true).unwrap()
    }

    #[test]
    fn a_time_is_shown_once_it_holds_for_every_certificate_that_was_revoked_together() {
        let mut old = revoked("0", NOW - 10_000);
        old.closed_at = Some(NOW - 9_000);
        let mut heard = heard(vec![revoked("2", NOW), revoked("1", NOW), old], Some(Bar::Revoked));
        let shown = status(&heard).unwrap();
        assert_eq!(shown.requested_at, Some(time_ms(NOW - 500)));
        assert_eq!((shown.crl, shown.shut_at, shown.session_closed_at), (None, None, None));
        assert_eq!(shown.certificates.len(), 3);
        heard.last[0].crl = Some((7, NOW + 1_000));
        assert_eq!(status(&heard).unwrap().crl, None, "only one of the two is in a CRL");
        heard.last[1].crl = Some((5, NOW + 2_000));
        heard.last[0].shut_at = Some(NOW + 3_000);
        heard.last[1].shut_at = Some(NOW + 4_000);
        let shown = status(&heard).unwrap();
        assert_eq!(
            shown.crl.map(|crl| (crl.number, crl.at)),
            Some((5, time_ms(NOW + 2_000)))
        );
        assert_eq!(shown.shut_at, Some(time_ms(NOW + 4_000)));
    }

    #[test]
    fn what_a_rotation_has_retired_says_nothing_of_what_a_person_asked_for() {
        let superseded = Marked {
            author: Author::Controller,
            crl: Some((3, NOW)),
            shut_at: Some(NOW),
            closed_at: Some(NOW),
            ..mark(
                "1",
                Standing::Revoked {
                    since: NOW / 1000,
                    reason: Reason::Superseded,
                },
                NOW,
            )
        };
        assert!(
            Heard::of(vec![superseded.clone()], None, true).is_none(),
            "a mistyped serial"
        );
        // The current certificate had ended when the device was revoked.
        let barred = heard(vec![superseded.clone()], Some(Bar::Revoked));
        assert_eq!(status(&barred), None);
        let said = verdict(&device(Some(Bar::Revoked)), &barred).unwrap();
        assert_eq!(said.reason, "Unspecified");
        assert!(said.message.contains("there was no certificate"), "{}", said.message);
        let both = heard(vec![superseded, revoked("2", NOW - 1_000)], Some(Bar::Revoked));
        let shown = status(&both).unwrap();
        assert_eq!((shown.crl, shown.certificates.len()), (None, 1));
        assert_eq!(shown.certificates[0].serial, "2");
    }

    #[test]
    fn a_release_is_shown_with_how_far_it_is() {
        let mut free = mark("1", Standing::Good, NOW);
        let shown = |mark: &Marked| {
            let heard = Heard::of(vec![mark.clone()], None, false).unwrap();
            (verdict(&device(None), &heard).unwrap(), status(&heard).unwrap())
        };
        let (said, progress) = shown(&free);
        assert_eq!((said.holds, said.reason.as_str()), (Some(false), "Released"));
        assert!(said.message.contains("not yet in a CRL"), "{}", said.message);
        assert_eq!(progress.certificates[0].state, CertificateStanding::Released);
        free.crl = Some((7, NOW + 1_000));
        (free.shut_at, free.closed_at) = (Some(NOW + 2_000), Some(NOW));
        let (said, progress) = shown(&free);
        assert!(
            said.message.contains("released, by CRL 7, at every node"),
            "{}",
            said.message
        );
        assert_eq!(
            (progress.shut_at, progress.session_closed_at),
            (Some(time_ms(NOW + 2_000)), None)
        );
        // Revoked before, released of something else since, and nobody speaks of it any more.
        let gone = vec![revoked("2", NOW), mark("1", Standing::Good, NOW - 5_000)];
        assert!(Heard::of(gone, None, false).is_none());
    }

    #[test]
    fn the_condition_names_the_revocation_that_holds_or_revoked_the_device() {
        let mut held = mark("1", Standing::Held { since: NOW / 1000 }, NOW);
        held.holders = vec![Holder::Revocation("u-1".into())];
        let mut heard = heard(vec![held.clone()], Some(Bar::Held));
        let object = ObjectRef {
            namespace: "demo".into(),
            name: "hold-all".into(),
        };
        heard.names.insert("u-1".into(), object.clone());
        let message = verdict(&device(Some(Bar::Held)), &heard).unwrap().message;
        assert!(
            message.contains("on hold by the Revocation demo/hold-all in the ledger"),
            "{message}"
        );
        assert!(!message.contains("take spec.revocation out"), "{message}");
        heard.last[0].holders.push(Holder::Person);
        let message = verdict(&device(Some(Bar::Held)), &heard).unwrap().message;
        assert!(
            message.contains("take spec.revocation out; and set spec.release of the Revocation demo/hold-all"),
            "{message}"
        );
        let mut out = revoked("1", NOW);
        out.author = Author::Revocation("u-1".into());
        let mut heard = self::heard(vec![out], Some(Bar::Revoked));
        heard.names.insert("u-1".into(), object);
        let message = verdict(&device(Some(Bar::Revoked)), &heard).unwrap().message;
        assert!(message.contains("revoked by the Revocation demo/hold-all"), "{message}");
    }

    #[test]
    fn a_node_is_shown_once_it_has_loaded_all_of_it() {
        let load = |node: &str, at| (node.to_owned(), at);
        let shown = nodes(&[vec![load("a", NOW), load("b", NOW)], vec![load("a", NOW + 1_000)]]);
        assert_eq!(shown.len(), 1);
        assert_eq!(
            (shown[0].node.as_str(), &shown[0].loaded_at),
            ("a", &time_ms(NOW + 1_000))
        );
    }

    #[test]
    fn the_condition_says_how_far_it_is_and_what_to_do() {
        let mut heard = heard(vec![revoked("1", NOW)], Some(Bar::Revoked));
        let message = |heard: &Heard| verdict(&device(Some(Bar::Revoked)), heard).unwrap().message;
        let said = verdict(&device(Some(Bar::Revoked)), &heard).unwrap();
        assert_eq!((said.holds, said.reason.as_str()), (Some(true), "KeyCompromise"));
        assert!(said.message.contains("not yet in a CRL") && said.message.contains("spec.reenrol"));
        heard.last[0].crl = Some((7, NOW));
        assert!(message(&heard).contains("condition DoorCurrent"));
        heard.last[0].shut_at = Some(NOW);
        assert!(message(&heard).contains("being closed"));
        heard.last[0].closed_at = Some(NOW);
        assert!(message(&heard).contains("no session is left"));
        let held = self::heard(
            vec![mark("1", Standing::Held { since: NOW / 1000 }, NOW)],
            Some(Bar::Held),
        );
        let said = verdict(&device(Some(Bar::Held)), &held).unwrap();
        assert_eq!((said.holds, said.reason.as_str()), (Some(true), "OnHold"));
        let again = verdict(&device(None), &heard).unwrap();
        assert_eq!((again.holds, again.reason.as_str()), (Some(false), "OtherCertificates"));
        assert_eq!(verdict(&device(None), &Heard::default()), None);
    }
}
