//! `revoke` and `hold`: single devices by their objects, many by a `Revocation` that is previewed first.

mod decide;
mod follow;
mod many;

use std::time::Duration;

use certwave_crds::{DeviceCertificate, DeviceState};
use clap::ValueEnum;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::json;

use super::label::LabelArgument;
use super::wait::heard;
use crate::output::ask::{Word, YesArgument, confirm};
use crate::output::{Format, OutputArgument, changed, name_of, say};
use crate::session::Session;
use crate::{Error, Result};

use decide::Deed;
pub(super) use follow::steps;

/// Whom it is about.
#[derive(clap::Args, Debug, Clone)]
pub struct Whom {
    /// Devices, by name or deviceId.
    #[arg(value_name = "DEVICE", conflicts_with_all = ["fleet", "selector", "issuer"])]
    devices: Vec<String>,
    /// All devices of this Fleet (of them those that -l selects).
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    labels: LabelArgument,
    /// Everything that this CA has issued to devices.
    #[arg(long, value_name = "CA", conflicts_with_all = ["fleet", "selector"])]
    issuer: Option<String>,
}

/// How it is carried out.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct How {
    /// Wait until CRLs, every node of the broker and the live sessions have followed; exit code 7 if they have not in time.
    #[arg(long, short)]
    wait: bool,
    /// How long to wait, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    #[command(flatten)]
    yes: YesArgument,
    #[command(flatten)]
    output: OutputArgument,
}

/// `revoke`.
#[derive(clap::Args, Debug)]
pub struct Revoke {
    #[command(flatten)]
    whom: Whom,
    /// A subordinate CA itself: its certificate goes on its issuer's CRL, and it issues nothing any more.
    #[arg(long, value_name = "CA", conflicts_with_all = ["devices", "fleet", "selector", "issuer"])]
    ca: Option<String>,
    /// Why (RFC 5280, 5.3.1).
    #[arg(long, value_enum, default_value_t = Why::Unspecified)]
    reason: Why,
    /// Since when somebody else may have used the key: 2026-11-20T18:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,
    /// Only the certificate with this serial number, of one device.
    #[arg(long, value_name = "HEX", requires = "devices")]
    serial: Option<String>,
    #[command(flatten)]
    how: How,
}

/// `hold`.
#[derive(clap::Args, Debug)]
pub struct Hold {
    #[command(flatten)]
    whom: Whom,
    /// Only the certificate with this serial number, of one device.
    #[arg(long, value_name = "HEX", requires = "devices")]
    serial: Option<String>,
    #[command(flatten)]
    how: How,
}

/// Why a certificate is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Why {
    /// No reason is given.
    #[value(name = "unspecified")]
    Unspecified,
    /// Somebody else may have the key.
    #[value(name = "keyCompromise")]
    KeyCompromise,
    /// Somebody else may have a CA's key; with --ca.
    #[value(name = "cACompromise")]
    CaCompromise,
    /// It belongs to somebody else now.
    #[value(name = "affiliationChanged")]
    AffiliationChanged,
    /// Another certificate has replaced it.
    #[value(name = "superseded")]
    Superseded,
    /// It is out of use.
    #[value(name = "cessationOfOperation")]
    CessationOfOperation,
    /// A privilege was withdrawn.
    #[value(name = "privilegeWithdrawn")]
    PrivilegeWithdrawn,
}

impl Why {
    /// As RFC 5280 spells it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
        }
    }
}

impl How {
    const fn patience(self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

pub(crate) async fn revoke(session: &Session, arguments: &Revoke) -> Result<()> {
    let deed = Deed::Revoke {
        reason: arguments.reason.word(),
        since: arguments.since,
    };
    carry_out(
        session,
        &arguments.whom,
        arguments.ca.as_deref(),
        arguments.serial.as_deref(),
        &deed,
        arguments.how,
    )
    .await
}

pub(crate) async fn hold(session: &Session, arguments: &Hold) -> Result<()> {
    carry_out(
        session,
        &arguments.whom,
        None,
        arguments.serial.as_deref(),
        &Deed::Hold,
        arguments.how,
    )
    .await
}

async fn carry_out(
    session: &Session,
    whom: &Whom,
    ca: Option<&str>,
    serial: Option<&str>,
    deed: &Deed,
    how: How,
) -> Result<()> {
    if whom.devices.is_empty() {
        let target = decide::target(
            whom.fleet.as_deref(),
            &whom.labels.labels()?,
            whom.issuer.as_deref(),
            ca,
        )?;
        return many::run(session, &target, deed, how).await;
    }
    if serial.is_some() && whom.devices.len() > 1 {
        return Err(Error::Usage("--serial is of one device".to_owned()));
    }
    if let Deed::Revoke {
        reason: "cACompromise", ..
    } = deed
    {
        return Err(Error::Usage(
            "cACompromise is of a CA: --ca; of a device choose keyCompromise".to_owned(),
        ));
    }
    // All are looked up before one is touched: a name that is mistyped must not leave half of them done.
    let mut devices = Vec::new();
    for name in &whom.devices {
        devices.push(session.device(name).await?);
    }
    let question = decide::question(&devices, serial, deed);
    match devices.len() {
        1 => confirm_if(deed, how, &question, Word::Yes)?,
        several => confirm_if(deed, how, &question, Word::Exactly(&several.to_string()))?,
    }
    let mut done = Vec::new();
    for device in &devices {
        done.push(one(session, device, serial, deed, how.output.format).await?);
    }
    if how.wait {
        return follow::devices(session, &done, how.patience()).await;
    }
    say(&follow::hint(&done));
    Ok(())
}

/// A hold is released when it was a mistake; a revocation is not.
fn confirm_if(deed: &Deed, how: How, question: &str, word: Word<'_>) -> Result<()> {
    match deed {
        Deed::Hold => Ok(()),
        Deed::Revoke { .. } => confirm(how.yes, question, word),
    }
}

/// One device: its object is changed, and the ledger waited for.
async fn one(
    session: &Session,
    device: &DeviceCertificate,
    serial: Option<&str>,
    deed: &Deed,
    format: Format,
) -> Result<DeviceCertificate> {
    let name = device.name_any();
    let full = name_of("DeviceCertificate", &name);
    let change = match decide::change(device, serial, deed)? {
        decide::Change::Already(said) => {
            changed(device, &full, said, format)?;
            return Ok(device.clone());
        }
        decide::Change::Anew(change) => {
            // What stands there was carried out before, and is not carried out again while it stands.
            let without = session.merge(&name, &json!({ "spec": { "revocation": null } })).await?;
            heard(session, &without, observed).await?;
            change
        }
        decide::Change::Set(change) => change,
    };
    let declared: DeviceCertificate = session.merge(&name, &change).await?;
    let taken = heard(session, &declared, observed).await?;
    if taken.is_none() {
        say(&format!(
            "note: {name} is declared so, but no controller has taken it up yet, so the device is NOT shut out; `kubectl certwave \
             doctor` says whether one is running"
        ));
    }
    let device = taken.unwrap_or(declared);
    changed(&device, &full, deed.done(), format)?;
    Ok(device)
}

pub(super) fn observed(device: &DeviceCertificate) -> Option<i64> {
    device.status.as_ref()?.observed_generation
}

/// Where the device stands.
pub(super) fn state(device: &DeviceCertificate) -> Option<DeviceState> {
    device.status.as_ref()?.state
}
