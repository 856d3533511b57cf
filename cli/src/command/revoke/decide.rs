//! What to change, and what to ask before. Pure.

use std::collections::BTreeMap;

use certwave_crds::{DeviceCertificate, DeviceState};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::state;
use crate::session::without_kind;
use crate::{Error, Result};

/// Names that a question mentions.
const NAMED: usize = 10;

/// What is done to certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deed {
    /// For good.
    Revoke {
        /// As RFC 5280 spells it.
        reason: &'static str,
        /// Since when the key may have been misused.
        since: Option<Timestamp>,
    },
    /// Until it is released.
    Hold,
}

impl Deed {
    /// What was done.
    pub(super) const fn done(&self) -> &'static str {
        match self {
            Self::Revoke { .. } => "revoked",
            Self::Hold => "on hold",
        }
    }
}

/// What to do to one device's object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// It is so; this says how.
    Already(&'static str),
    /// This merge patch.
    Set(Value),
    /// This merge patch, after what stands in `spec.revocation` was taken out: that is from before the device came back.
    Anew(Value),
}

/// What to do to one device.
pub(super) fn change(device: &DeviceCertificate, serial: Option<&str>, deed: &Deed) -> Result<Change> {
    let name = device.name_any();
    // A merge patch keeps what it does not name.
    let revocation = match deed {
        Deed::Revoke { reason, since } => json!({ "hold": false, "reason": reason, "since": since, "serial": serial }),
        Deed::Hold => json!({ "hold": true, "reason": null, "since": null, "serial": serial }),
    };
    let change = json!({ "spec": { "revocation": revocation } });
    let Some(standing) = &device.spec.revocation else {
        return Ok(Change::Set(change));
    };
    let state = state(device);
    let same = standing.serial.as_deref() == serial;
    Ok(match deed {
        Deed::Hold if standing.hold && same => Change::Already("is on hold already"),
        Deed::Hold if standing.hold => Change::Anew(change),
        Deed::Hold if state == Some(DeviceState::Revoked) => {
            return Err(Error::Refused(format!(
                "{name} is revoked, and a revocation cannot become a hold"
            )));
        }
        Deed::Revoke { .. } if standing.hold => Change::Set(change),
        Deed::Revoke { .. } if state == Some(DeviceState::Revoked) && same => Change::Already("is revoked already"),
        Deed::Hold | Deed::Revoke { .. } => Change::Anew(change),
    })
}

/// What to ask before devices are revoked.
pub(super) fn question(devices: &[DeviceCertificate], serial: Option<&str>, deed: &Deed) -> String {
    let names: Vec<_> = devices
        .iter()
        .take(NAMED)
        .map(|device| device.spec.device_id.as_str())
        .collect();
    let more = devices.len().saturating_sub(names.len());
    let more = if more == 0 {
        String::new()
    } else {
        format!(" and {more} more")
    };
    let what = serial.map_or_else(
        || "all certificates".to_owned(),
        |serial| format!("certificate {serial}"),
    );
    let why = match deed {
        Deed::Revoke { reason, .. } => format!("revoke for good ({reason})"),
        Deed::Hold => "put on hold".to_owned(),
    };
    format!(
        "This will {why} {what} of {}{more}. Such a device is shut out; to let it back takes a permit and a claim.",
        names.join(", ")
    )
}

/// Whom a `Revocation` is about: a name for it, the part of its spec, and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The object's name begins so.
    pub(super) prefix: String,
    /// Part of the spec.
    pub(super) spec: Value,
    /// For people.
    pub(super) words: String,
}

/// Many devices, or a CA.
pub(super) fn target(
    fleet: Option<&str>,
    labels: &BTreeMap<String, String>,
    issuer: Option<&str>,
    ca: Option<&str>,
) -> Result<Target> {
    if let Some(ca) = ca.map(without_kind) {
        return Ok(Target {
            prefix: ca.to_owned(),
            spec: json!({ "certificateAuthority": { "name": ca } }),
            words: format!("the CA {ca} itself"),
        });
    }
    if let Some(issuer) = issuer.map(without_kind) {
        return Ok(Target {
            prefix: format!("issued-by-{issuer}"),
            spec: json!({ "issuerRef": { "name": issuer } }),
            words: format!("everything that {issuer} has issued to devices"),
        });
    }
    if fleet.is_none() && labels.is_empty() {
        return Err(Error::Usage(
            "say whom: devices by name, --fleet, -l, --issuer, or (revoke) --ca".to_owned(),
        ));
    }
    let fleet = fleet.map(without_kind);
    let mut spec = json!({});
    if let Some(fleet) = fleet {
        spec["fleetRef"] = json!({ "name": fleet });
    }
    let mut words = fleet.map_or_else(|| "the devices".to_owned(), |fleet| format!("the devices of {fleet}"));
    if !labels.is_empty() {
        spec["selector"] = json!({ "matchLabels": labels });
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        words = format!("{words} with {}", labels.join(","));
    }
    Ok(Target {
        prefix: fleet.unwrap_or("devices").to_owned(),
        spec,
        words,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn device(revocation: &Value, state: &str) -> DeviceCertificate {
        serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate", "metadata": {"name": "pump-1"},
            "spec": {"fleetRef": {"name": "pumps"}, "deviceId": "pump-1", "revocation": revocation}, "status": {"state": state},
        }))
        .unwrap()
    }

    const STOLEN: Deed = Deed::Revoke {
        reason: "keyCompromise",
        since: None,
    };

    #[test]
    fn a_hold_that_becomes_a_revocation_keeps_nothing_of_the_hold() {
        let held = device(&json!({"hold": true, "serial": "ab"}), "Held");
        let Change::Set(change) = change(&held, None, &STOLEN).unwrap() else {
            unreachable!()
        };
        assert_eq!(
            change["spec"]["revocation"],
            json!({"hold": false, "reason": "keyCompromise", "since": null, "serial": null})
        );
    }

    #[test]
    fn what_is_so_already_is_not_done_again() {
        let revoked = device(&json!({"reason": "keyCompromise"}), "Revoked");
        assert_eq!(
            change(&revoked, None, &STOLEN).unwrap(),
            Change::Already("is revoked already")
        );
        let held = device(&json!({"hold": true}), "Held");
        assert_eq!(
            change(&held, None, &Deed::Hold).unwrap(),
            Change::Already("is on hold already")
        );
    }

    #[test]
    fn a_device_that_came_back_is_revoked_anew() {
        let back = device(&json!({"reason": "keyCompromise"}), "Active");
        assert!(matches!(change(&back, None, &STOLEN).unwrap(), Change::Anew(_)));
        assert!(matches!(change(&back, None, &Deed::Hold).unwrap(), Change::Anew(_)));
    }

    #[test]
    fn a_revocation_does_not_become_a_hold() {
        let revoked = device(&json!({"reason": "keyCompromise"}), "Revoked");
        assert!(change(&revoked, None, &Deed::Hold).is_err());
    }

    #[test]
    fn nobody_is_meant_by_saying_nothing() {
        let none = BTreeMap::new();
        assert!(target(None, &none, None, None).is_err());
        let site = BTreeMap::from([("site".to_owned(), "north".to_owned())]);
        let some = target(Some("pumps"), &site, None, None).unwrap();
        assert_eq!(some.words, "the devices of pumps with site=north");
        assert_eq!(
            some.spec,
            json!({"fleetRef": {"name": "pumps"}, "selector": {"matchLabels": {"site": "north"}}})
        );
        assert_eq!(
            target(None, &none, Some("ca/b"), None).unwrap().spec,
            json!({"issuerRef": {"name": "b"}})
        );
    }

    #[test]
    fn the_question_names_the_devices() {
        let many = vec![device(&Value::Null, "Active"); 12];
        let asked = question(&many, None, &STOLEN);
        assert!(
            asked.contains("pump-1") && asked.contains("and 2 more") && asked.contains("keyCompromise"),
            "{asked}"
        );
    }
}
