//! How far a revocation is: ledger, CRL, every node of the broker, live session.

use std::time::Duration;

use certwave_crds::{DeviceCertificate, DeviceRevocationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::command::wait::until;
use crate::output::{print, say};
use crate::session::Session;
use crate::time::exact;
use crate::{Error, Result};

/// The steps, each with its time once it holds.
pub(in crate::command) fn steps(status: &DeviceRevocationStatus) -> [(&'static str, Option<Time>); 5] {
    [
        ("asked for", status.requested_at.clone()),
        ("in the ledger, and OCSP says so", status.ledger_at.clone()),
        ("in a CRL", status.crl.as_ref().map(|crl| crl.at.clone())),
        ("refused by every node of the broker", status.shut_at.clone()),
        ("live session closed", status.session_closed_at.clone()),
    ]
}

fn is_through(status: Option<&DeviceRevocationStatus>) -> bool {
    status.is_some_and(|status| status.crl.is_some() && status.shut_at.is_some() && status.session_closed_at.is_some())
}

fn of(device: &DeviceCertificate) -> Option<&DeviceRevocationStatus> {
    device.status.as_ref()?.revocation.as_ref()
}

/// What happens next.
pub(super) fn hint(devices: &[DeviceCertificate]) -> String {
    let name = devices.first().map(kube::ResourceExt::name_any).unwrap_or_default();
    format!(
        "CRL, brokers and live sessions follow within seconds where they report; --wait waits for that.\n\
         See how far it is by: kubectl certwave inspect {name}"
    )
}

/// Prints each step of each device as it comes to hold.
///
/// # Errors
/// [`Error::Found`] when not all hold in time.
pub(super) async fn devices(session: &Session, devices: &[DeviceCertificate], patience: Duration) -> Result<()> {
    let api = session.api::<DeviceCertificate>();
    for device in devices {
        let name = device.name_any();
        let look = || {
            let (api, name) = (api.clone(), name.clone());
            async move { Ok(api.get(&name).await?) }
        };
        let mut said = 0;
        let mut last = None;
        let through = until(patience, look, |device: DeviceCertificate| {
            let status = of(&device).cloned();
            let all = status.as_ref().map(steps).into_iter().flatten();
            let have: Vec<_> = all.filter_map(|(what, at)| at.map(|at| (what, at))).collect();
            for (what, at) in have.iter().skip(said) {
                print(&format!("{} {name}: {what}\n", exact(Some(at))))?;
            }
            said = said.max(have.len());
            let through = is_through(status.as_ref());
            last = status;
            Ok(through.then_some(()))
        });
        if through.await?.is_none() {
            let missing = last.as_ref().map_or_else(
                || "nothing; no controller has taken it up".to_owned(),
                |status| {
                    let open = steps(status).into_iter().filter(|(_, at)| at.is_none());
                    open.map(|(what, _)| what).collect::<Vec<_>>().join(", ")
                },
            );
            say(&format!(
                "{name}: not yet: {missing}. A broker without an adapter that reports says nothing of its doors; see docs/revocation.md"
            ));
            return Err(Error::Found(format!(
                "{name} is declared so, and not everybody has followed in time"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_through_when_crl_door_and_session_are() {
        let at = "2026-11-21T12:00:00Z";
        let mut status = json!({"ledgerAt": at, "crl": {"number": 7, "at": at}, "shutAt": at});
        let read = |value: &serde_json::Value| serde_json::from_value::<DeviceRevocationStatus>(value.clone()).unwrap();
        assert!(!is_through(Some(&read(&status))));
        status["sessionClosedAt"] = json!(at);
        assert!(is_through(Some(&read(&status))));
        assert!(!is_through(None));
        assert_eq!(steps(&read(&status)).iter().filter(|(_, at)| at.is_some()).count(), 4);
    }
}
