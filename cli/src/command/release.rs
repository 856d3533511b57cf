//! `release`: ends a hold.

use certwave_crds::{DeviceCertificate, Revocation};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{from_value, json};

use super::wait::heard;
use crate::output::{Format, OutputArgument, changed as changed_object, name_of, say};
use crate::session::{Session, without_kind};
use crate::{Error, Result};

/// `release`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Devices, by name or deviceId; or Revocations that hold many, as revocation/NAME.
    #[arg(required = true, value_name = "DEVICE")]
    targets: Vec<String>,
    #[command(flatten)]
    output: OutputArgument,
}

/// `release`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    for target in &arguments.targets {
        let kind = target
            .split_once('/')
            .map(|(kind, _)| kind.split('.').next().unwrap_or(kind));
        match kind {
            Some("revocation" | "revocations" | "revoc") => {
                many(session, without_kind(target), arguments.output.format).await?;
            }
            _ => one(session, target, arguments.output.format).await?,
        }
    }
    Ok(())
}

async fn one(session: &Session, target: &str, format: Format) -> Result<()> {
    let device = session.device(target).await?;
    let name = device.name_any();
    may_release(&device)?;
    // Only a hold is taken out: what became a revocation meanwhile stays.
    let change = json!([
        { "op": "test", "path": "/spec/revocation/hold", "value": true },
        { "op": "remove", "path": "/spec/revocation" },
    ]);
    let patch = from_value(change).map_err(|e| Error::Api(e.to_string()))?;
    let params = PatchParams {
        field_manager: Some(session.manager().await.to_owned()),
        ..PatchParams::default()
    };
    let api = session.api::<DeviceCertificate>();
    let changed = api.patch(&name, &params, &Patch::<()>::Json(patch)).await?;
    let taken = heard(session, &changed, super::revoke::observed).await?;
    let is_taken = taken.is_some();
    changed_object(
        &taken.unwrap_or(changed),
        &name_of("DeviceCertificate", &name),
        "released",
        format,
    )?;
    say(if is_taken {
        "Its certificates are good again unless somebody else holds them; brokers follow with their next CRL, and the device tries \
         again by itself, which may take minutes."
    } else {
        "It is declared so, but no controller has taken it up yet; `kubectl certwave doctor` says whether one is running"
    });
    Ok(())
}

/// Whether there is a hold of its own to take out.
fn may_release(device: &DeviceCertificate) -> Result<()> {
    let name = device.name_any();
    match &device.spec.revocation {
        Some(revocation) if revocation.hold => Ok(()),
        Some(_) => Err(Error::Refused(format!(
            "{name} is revoked, which is final; to let the device back give it a permit (spec.reenrol) and a claim"
        ))),
        None => {
            let held = super::revoke::state(device) == Some(certwave_crds::DeviceState::Held);
            let hint = if held {
                "; a Revocation holds it: kubectl get revocations, then kubectl certwave release revocation/NAME"
            } else {
                ""
            };
            Err(Error::Refused(format!("{name} has no hold of its own{hint}")))
        }
    }
}

async fn many(session: &Session, name: &str, format: Format) -> Result<()> {
    let revocation: Revocation = session.api().get(name).await?;
    if !revocation.spec.hold {
        return Err(Error::Refused(format!(
            "Revocation {name} has revoked for good; only a hold can be released"
        )));
    }
    let changed: Revocation = session.merge(name, &json!({ "spec": { "release": true } })).await?;
    changed_object(&changed, &name_of("Revocation", name), "released", format)?;
    say(&format!(
        "What it holds is released, unless somebody else holds it as well.\nSee how far it is by: kubectl get revocation {name} -w"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn device(revocation: &serde_json::Value, state: &str) -> DeviceCertificate {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate", "metadata": {"name": "pump-1"},
            "spec": {"fleetRef": {"name": "pumps"}, "deviceId": "pump-1", "revocation": revocation}, "status": {"state": state},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_hold_is_released() {
        assert!(may_release(&device(&json!({"hold": true}), "Held")).is_ok());
        let revoked = may_release(&device(&json!({"reason": "keyCompromise"}), "Revoked")).unwrap_err();
        assert!(revoked.to_string().contains("permit"), "{revoked}");
        let other = may_release(&device(&json!(null), "Held")).unwrap_err();
        assert!(other.to_string().contains("revocation/NAME"), "{other}");
    }
}
