//! A person revokes a stolen device: out within seconds, its session closed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use certwave_crds::{DeviceCertificate, DeviceRevocationStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::verifier::Verifier;
use crate::device_files;
use crate::mqtt::Connection;
use crate::revoked;
use crate::screen::Screen;
use crate::stack::Stack;
use crate::tally::current;
use crate::wait::wait_for;

const SHOWN: Duration = Duration::from_secs(30);

/// Revokes the device, waits until its object shows that its session is closed, and knocks at the broker with its certificate.
pub(super) async fn device(stack: &Stack, screen: &mut Screen, files: &Path, id: &str) -> Result<()> {
    let objects = stack.objects::<DeviceCertificate>();
    let sha256 = current(&objects.get(id).await?).with_context(|| format!("{id} has no certificate"))?;
    let identity = device_files::identity(&files.join(id), &sha256)?;
    let change = r#"{"spec":{"revocation":{"reason":"keyCompromise"}}}"#;
    let target = format!("devicecertificate/{id}");
    screen.say(&format!(
        "   $ kubectl patch {target} --type=merge \\\n       -p '{change}'"
    ));
    stack.api.kubectl(["patch", &target, "--type=merge", "-p", change])?;

    let shown = wait_for("the revocation to take effect", SHOWN, || async {
        let status = objects.get(id).await?.status.and_then(|status| status.revocation);
        let status = status.context("nothing is shown yet")?;
        ensure!(status.session_closed_at.is_some(), "{status:?}");
        Ok(status)
    });
    screen.say(&format!("   {}", steps(&shown.await?)));

    let verifier = Verifier::new(stack).await?;
    let knock = Connection::open(stack.broker.device_address(), &verifier.root, Some(&identity), id).await;
    ensure!(knock.is_err(), "{id} still gets in by its revoked certificate");
    let file = stack.directory().join(format!("{id}.stolen.pem"));
    std::fs::write(&file, identity.certificate)?;
    let said = revoked::said_of(&file)?.context("the CRL does not list it")?;
    screen.say(&format!(
        "   the broker refuses it at the handshake; the CRL says: {said}"
    ));
    Ok(())
}

/// `in the ledger +0 s, in the CRL +1 s, loaded by the broker +1 s, session closed +1 s`.
fn steps(status: &DeviceRevocationStatus) -> String {
    let asked = status.requested_at.as_ref();
    let after = |what: &str, at: Option<&Time>| {
        let (asked, at) = (asked?, at?);
        Some(format!("{what} +{} s", at.0.as_second() - asked.0.as_second()))
    };
    let steps = [
        after("in the ledger", status.ledger_at.as_ref()),
        after("in the CRL", status.crl.as_ref().map(|crl| &crl.at)),
        after("loaded by the broker", status.shut_at.as_ref()),
        after("session closed", status.session_closed_at.as_ref()),
    ];
    steps.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
