//! Many at once: a `Revocation` is previewed, shown, and run over exactly those who were shown.

use certwave_crds::{Revocation, RevocationPhase, RevocationStatus};
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::How;
use super::decide::{Deed, Target};
use crate::command::wait::{ANSWER, until};
use crate::output::ask::{Word, confirm};
use crate::output::{changed, count, name_of, print, say};
use crate::session::Session;
use crate::{Error, Result, judge};

pub(super) async fn run(session: &Session, target: &Target, deed: &Deed, how: How) -> Result<()> {
    let object = object(target, deed)?;
    let created = session
        .api::<Revocation>()
        .create(&session.post().await, &object)
        .await?;
    let name = created.name_any();
    let run = async {
        let seen = previewed(session, &name).await?;
        ask(target, deed, how, &seen)?;
        let begin = json!({ "spec": { "mode": "Run", "planHash": seen.plan_hash.unwrap_or_default() } });
        session.merge::<Revocation>(&name, &begin).await
    };
    let begun = tokio::select! {
        begun = run => begun,
        _ = tokio::signal::ctrl_c() => Err(Error::Declined("interrupted; nothing was changed".to_owned())),
    };
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => {
            // Only previewed so far: it changes nothing, and nobody is to find it later and wonder.
            if let Err(error) = session
                .api::<Revocation>()
                .delete(&name, &DeleteParams::default())
                .await
            {
                let error = Error::from(error);
                say(&format!(
                    "note: the previewed Revocation {name} stays, as it could not be deleted ({error})"
                ));
            }
            return Err(error);
        }
    };
    changed(&begun, &name_of("Revocation", &name), "begun", how.output.format)?;
    if how.wait {
        return follow(session, &name, how).await;
    }
    let release = match deed {
        Deed::Hold => format!("    Release them by: kubectl certwave release revocation/{name}"),
        Deed::Revoke { .. } => String::new(),
    };
    say(&format!(
        "500 devices in a transaction at a time are recorded; CRLs, brokers and sessions follow.\n\
         See how far it is by: kubectl get revocation {name} -w{release}"
    ));
    Ok(())
}

fn object(target: &Target, deed: &Deed) -> Result<Revocation> {
    let mut spec = target.spec.clone();
    spec["mode"] = json!("Preview");
    let what = match deed {
        Deed::Revoke { reason, since } => {
            spec["reason"] = json!(reason);
            if let Some(since) = since {
                spec["since"] = json!(since);
            }
            "revoked"
        }
        Deed::Hold => {
            spec["hold"] = Value::Bool(true);
            "held"
        }
    };
    let object = json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "Revocation",
        "metadata": { "generateName": format!("{}-{what}-", target.prefix) }, "spec": spec,
    });
    serde_json::from_value(object).map_err(|error| Error::Usage(format!("this makes no Revocation: {error}")))
}

/// Waits until it was counted whom it is about.
async fn previewed(session: &Session, name: &str) -> Result<RevocationStatus> {
    let api = session.api::<Revocation>();
    let look = || {
        let api = api.clone();
        async move { Ok(api.get(name).await?) }
    };
    let counted = until(ANSWER, look, |revocation: Revocation| {
        let status = revocation.status.unwrap_or_default();
        match status.phase {
            Some(RevocationPhase::Ready) => Ok(Some(status)),
            Some(RevocationPhase::Invalid) => {
                let why = judge::condition(&status.conditions, "Complete").map_or("", |c| c.message.as_str());
                Err(Error::Refused(format!("it cannot begin: {why}")))
            }
            _ => Ok(None),
        }
    });
    counted.await?.ok_or_else(|| {
        Error::Unreachable(
            "no controller has counted whom it is about; `kubectl certwave doctor` says whether one is running"
                .to_owned(),
        )
    })
}

fn ask(target: &Target, deed: &Deed, how: How, seen: &RevocationStatus) -> Result<()> {
    let matched = seen.matched;
    if matched.certificates == 0 {
        return Err(Error::Refused(format!(
            "{}: nothing that could be revoked or held",
            target.words
        )));
    }
    let some = if seen.examples.is_empty() {
        String::new()
    } else {
        format!(", among them {}", seen.examples.join(", "))
    };
    let question = format!(
        "{}: {} of {}{some}.\n{}",
        target.words,
        count(matched.certificates, "certificate"),
        count(matched.devices, "device"),
        match deed {
            Deed::Revoke { reason, .. } =>
                format!("Revoke them for good ({reason})? Devices that have nothing else are shut out."),
            Deed::Hold => "Put them on hold? They are shut out until they are released.".to_owned(),
        }
    );
    confirm(how.yes, &question, Word::Exactly(&matched.certificates.to_string()))
}

/// Prints how far it is until it is complete.
async fn follow(session: &Session, name: &str, how: How) -> Result<()> {
    let api = session.api::<Revocation>();
    let look = || {
        let api = api.clone();
        async move { Ok(api.get(name).await?) }
    };
    let mut said = String::new();
    let complete = until(how.patience(), look, |revocation: Revocation| {
        let status = revocation.status.unwrap_or_default();
        let p = status.progress;
        let line = format!(
            "{:?}: {} certificates recorded, {} in CRLs, {} refused by every node, {} sessions closed\n",
            status.phase.unwrap_or(RevocationPhase::Running),
            p.recorded,
            p.in_crl,
            p.shut,
            p.closed
        );
        if line != said {
            print(&line)?;
            said = line;
        }
        Ok((status.phase == Some(RevocationPhase::Complete)).then_some(()))
    });
    match complete.await? {
        Some(()) => Ok(()),
        None => Err(Error::Found(format!(
            "Revocation {name} goes on, and is not complete yet; kubectl get revocation {name} -w"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_revocation_of_many_begins_as_a_preview() {
        let target = Target {
            prefix: "pumps".to_owned(),
            spec: json!({"fleetRef": {"name": "pumps"}}),
            words: String::new(),
        };
        let held = object(&target, &Deed::Hold).unwrap();
        assert_eq!(held.metadata.generate_name.as_deref(), Some("pumps-held-"));
        assert!(held.spec.hold && held.spec.mode == certwave_crds::RevocationMode::Preview);
        let deed = Deed::Revoke {
            reason: "superseded",
            since: None,
        };
        let revoked = object(&target, &deed).unwrap();
        assert_eq!(revoked.spec.reason, Some(certwave_crds::RevocationReason::Superseded));
        assert!(!revoked.spec.hold);
    }
}
