//! `expiring`: what ends soon.

use std::collections::BTreeMap;

use certwave_crds::{Broker, CertificateAuthority, DeviceCertificate};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde::Serialize;

use super::label::{LabelArgument, matches};
use crate::output::{self, OutputArgument, Show, Table, say};
use crate::session::{Session, pages, without_kind};
use crate::time::{exact, from_now};
use crate::{Result, judge};

/// `expiring`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// What ends within this time, or has ended.
    #[arg(long, value_name = "DURATION", default_value = "30d")]
    within: certwave_crds::Duration,
    /// Devices of this Fleet only.
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    labels: LabelArgument,
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// At most so many, those that end first.
    #[arg(long, value_name = "N", default_value_t = 500)]
    limit: usize,
    #[command(flatten)]
    output: OutputArgument,
}

/// Something that ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    not_after: Time,
    kind: &'static str,
    namespace: String,
    name: String,
    /// A device's Fleet; what the certificate is for.
    of: String,
    state: String,
    /// Why it has not been replaced, as far as that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// What ends soon, the first end first.
#[derive(Debug, Serialize)]
struct Expiring {
    items: Vec<Line>,
    #[serde(skip)]
    now: Timestamp,
    #[serde(skip)]
    namespaces: bool,
}

impl Show for Expiring {
    fn table(&self, wide: bool) -> String {
        if self.items.is_empty() {
            return "nothing ends within this time\n".to_owned();
        }
        let mut head = vec!["ENDS"];
        if self.namespaces {
            head.push("NAMESPACE");
        }
        head.extend(["KIND", "NAME", "OF", "STATE"]);
        if wide {
            head.push("UNTIL");
        }
        head.push("WHY");
        let mut table = Table::new(head);
        for line in &self.items {
            let mut row = vec![from_now(Some(&line.not_after), self.now)];
            if self.namespaces {
                row.push(line.namespace.clone());
            }
            row.extend([
                line.kind.to_owned(),
                line.name.clone(),
                line.of.clone(),
                line.state.clone(),
            ]);
            if wide {
                row.push(exact(Some(&line.not_after)));
            }
            row.push(line.why.clone());
            table.row(row);
        }
        table.text()
    }

    fn names(&self) -> Vec<String> {
        self.items
            .iter()
            .map(|line| output::name_of(line.kind, &line.name))
            .collect()
    }
}

/// A device's line; `None` where it has no certificate, or it is of no use any more since it was revoked.
fn of_device(device: &DeviceCertificate, now: Timestamp) -> Option<Line> {
    let status = device.status.as_ref()?;
    let not_after = status.certificates.current.as_ref()?.not_after.clone()?;
    let state = status.state.map_or_else(String::new, |state| format!("{state:?}"));
    if state == "Revoked" {
        return None;
    }
    let job = status
        .job
        .as_ref()
        .filter(|job| job.code.is_some() || job.message.is_some());
    let failed = job.map(|job| {
        let parts = [job.code.as_deref(), job.message.as_deref()];
        parts.into_iter().flatten().collect::<Vec<_>>().join(": ")
    });
    let why = if not_after.0 <= now {
        "over: it needs a permit (spec.reenrol) and a claim".to_owned()
    } else if let Some(failed) = failed {
        failed
    } else {
        let ready = judge::condition(&status.conditions, "Ready").filter(|c| c.status == "False");
        ready.map(|c| c.message.clone()).unwrap_or_default()
    };
    Some(Line {
        not_after,
        kind: "DeviceCertificate",
        namespace: device.namespace().unwrap_or_default(),
        name: device.name_any(),
        of: device.spec.fleet_ref.name.clone(),
        state,
        why,
    })
}

fn of_authority(ca: &CertificateAuthority) -> Vec<Line> {
    let Some(status) = &ca.status else { return Vec::new() };
    let line = |not_after: &Time, of: &str, why: String| Line {
        not_after: not_after.clone(),
        kind: "CertificateAuthority",
        namespace: ca.namespace().unwrap_or_default(),
        name: ca.name_any(),
        of: of.to_owned(),
        state: String::new(),
        why,
    };
    let soon = judge::condition(&status.conditions, "ExpiringSoon").filter(|c| c.status == "True");
    let own = status.not_after.as_ref().map(|end| {
        line(
            end,
            "the CA itself",
            soon.map(|c| c.message.clone()).unwrap_or_default(),
        )
    });
    let signer = status
        .ocsp_signer
        .as_ref()
        .map(|signer| line(&signer.not_after, "OCSP answers", String::new()));
    own.into_iter().chain(signer).collect()
}

fn of_broker(broker: &Broker) -> Vec<Line> {
    let Some(status) = &broker.status else {
        return Vec::new();
    };
    let all = [
        ("control certificate", &status.control_certificate),
        ("controller's client", &status.client_certificate),
        ("server", &status.server_certificate),
    ];
    let line = |(of, certificate): (&str, &Option<certwave_crds::CertificateStatus>)| {
        Some(Line {
            not_after: certificate.as_ref()?.not_after.clone()?,
            kind: "Broker",
            namespace: broker.namespace().unwrap_or_default(),
            name: broker.name_any(),
            of: of.to_owned(),
            state: String::new(),
            why: String::new(),
        })
    };
    all.into_iter().filter_map(line).collect()
}

/// Keeps the `limit` that end first among what is added, so that a large fleet does not have to fit into memory.
struct First {
    before: Timestamp,
    limit: usize,
    seen: usize,
    kept: Vec<Line>,
}

impl First {
    fn add(&mut self, line: Line) {
        if line.not_after.0 > self.before {
            return;
        }
        self.seen += 1;
        self.kept.push(line);
        if self.kept.len() >= self.limit.saturating_mul(2).max(1000) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.kept
            .sort_by(|a, b| (a.not_after.0, &a.namespace, &a.name).cmp(&(b.not_after.0, &b.namespace, &b.name)));
        self.kept.truncate(self.limit);
    }
}

/// `expiring`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let now = Timestamp::now();
    let labels: BTreeMap<String, String> = arguments.labels.labels()?;
    let within = jiff::SignedDuration::from_secs(arguments.within.as_secs());
    let mut first = First {
        before: now.saturating_add(within).unwrap_or(Timestamp::MAX),
        limit: arguments.limit,
        seen: 0,
        kept: Vec::new(),
    };
    let mut params = ListParams::default();
    if let Some(fleet) = &arguments.fleet {
        params = params.fields(&format!("spec.fleetRef.name={}", without_kind(fleet)));
    }
    let all = arguments.all_namespaces;
    let devices = session.api_of::<DeviceCertificate>(all);
    pages(&devices, &params, |page| {
        let selected = page.iter().filter(|device| matches(&labels, &device.spec.labels));
        selected
            .filter_map(|device| of_device(device, now))
            .for_each(|line| first.add(line));
    })
    .await?;
    if arguments.fleet.is_none() && labels.is_empty() {
        let authorities: Vec<CertificateAuthority> = session.list(all).await?;
        authorities
            .iter()
            .flat_map(of_authority)
            .for_each(|line| first.add(line));
        let brokers: Vec<Broker> = session.list(all).await?;
        brokers.iter().flat_map(of_broker).for_each(|line| first.add(line));
    }
    first.cut();
    if first.seen > first.kept.len() {
        say(&format!(
            "note: {} of {} are shown; --limit shows more",
            first.kept.len(),
            first.seen
        ));
    }
    let answer = Expiring {
        items: first.kept,
        now,
        namespaces: all,
    };
    output::show(&answer, arguments.output.format)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{from_value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T12:00:00Z".parse().unwrap()
    }

    fn device(name: &str, end: &str, state: &str) -> DeviceCertificate {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate", "metadata": {"name": name, "namespace": "plant"},
            "spec": {"fleetRef": {"name": "pumps"}, "deviceId": name},
            "status": {"state": state, "certificates": {"current": {"notAfter": end}},
                "job": {"id": "j", "kind": "Rotate", "state": "Failed", "code": "csr-rejected"}},
        }))
        .unwrap()
    }

    #[test]
    fn why_it_was_not_replaced_is_said() {
        let soon = of_device(&device("a", "2026-11-22T12:00:00Z", "Failed"), now()).unwrap();
        assert_eq!(soon.why, "csr-rejected");
        let over = of_device(&device("a", "2026-11-20T12:00:00Z", "Expired"), now()).unwrap();
        assert!(over.why.contains("permit"));
        assert_eq!(of_device(&device("a", "2026-11-22T12:00:00Z", "Revoked"), now()), None);
    }

    #[test]
    fn of_many_those_that_end_first_are_kept() {
        let mut first = First {
            before: "2026-12-21T12:00:00Z".parse().unwrap(),
            limit: 2,
            seen: 0,
            kept: Vec::new(),
        };
        for day in (1..=28).rev() {
            first.add(
                of_device(
                    &device(&format!("d{day}"), &format!("2026-12-{day:02}T00:00:00Z"), "Active"),
                    now(),
                )
                .unwrap(),
            );
        }
        first.cut();
        let names: Vec<_> = first.kept.iter().map(|line| line.name.as_str()).collect();
        assert_eq!((names, first.seen), (vec!["d1", "d2"], 21));
    }
}
