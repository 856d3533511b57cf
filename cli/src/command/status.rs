//! `status`: fleets at a glance, and what needs a person.

use std::collections::BTreeSet;

use certwave_crds::{Broker, CertificateAuthority, Fleet, FleetCounts, Rotation};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::finding::{self, Finding, Level};
use crate::output::{self, OutputArgument, Show, Table};
use crate::progress::{bar, is_over, percent, phase};
use crate::session::{Session, without_kind};
use crate::time::from_now;
use crate::{Error, Result, judge};

/// Fleets at a glance.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// These Fleets; all where left out.
    pub fleets: Vec<String>,
    /// Of all namespaces.
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    #[command(flatten)]
    output: OutputArgument,
}

/// What is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The Fleets, by namespace and name.
    pub fleets: Vec<Line>,
    /// What a person should look at, the worst first.
    pub attention: Vec<Finding>,
    #[serde(skip)]
    now: Timestamp,
    #[serde(skip)]
    namespaces: bool,
}

/// One Fleet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    namespace: String,
    name: String,
    ready: Option<bool>,
    ca: String,
    broker: String,
    counts: FleetCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_due: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation: Option<Running>,
}

/// The Rotation that runs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Running {
    name: String,
    phase: String,
    wave: String,
    planned: i64,
    confirmed: i64,
    in_flight: i64,
    failures: i64,
    losses: i64,
    offline: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eta: Option<Time>,
}

/// What the objects say.
pub struct Objects {
    /// Fleets.
    pub fleets: Vec<Fleet>,
    /// Rotations.
    pub rotations: Vec<Rotation>,
    /// CAs.
    pub authorities: Vec<CertificateAuthority>,
    /// Brokers.
    pub brokers: Vec<Broker>,
}

impl Objects {
    /// Reads them. Devices are not among them: their Fleets count them.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn read(session: &Session, all: bool) -> Result<Self> {
        let (fleets, rotations, authorities, brokers) = tokio::try_join!(
            session.list(all),
            session.list(all),
            session.list(all),
            session.list(all)
        )?;
        Ok(Self {
            fleets,
            rotations,
            authorities,
            brokers,
        })
    }

    /// What is to be said of them.
    pub fn judged(&self, now: Timestamp) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.authorities.iter().flat_map(|ca| judge::authority::judge(ca, now)));
        findings.extend(self.brokers.iter().flat_map(|broker| judge::broker::judge(broker, now)));
        findings.extend(self.fleets.iter().flat_map(judge::fleet::judge));
        findings.extend(self.rotations.iter().flat_map(judge::rotation::judge));
        findings
    }
}

/// Sums up what the objects say.
pub fn sum_up(mut objects: Objects, namespaces: bool, now: Timestamp) -> Status {
    let mut attention: Vec<Finding> = objects
        .judged(now)
        .into_iter()
        .filter(|f| f.level > Level::Ok)
        .collect();
    attention.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    objects
        .fleets
        .sort_by_key(|fleet| (fleet.namespace(), fleet.name_any()));
    let lines = objects.fleets.iter().map(|fleet| line(fleet, &objects.rotations));
    Status {
        fleets: lines.collect(),
        attention,
        now,
        namespaces,
    }
}

fn line(fleet: &Fleet, rotations: &[Rotation]) -> Line {
    let status = fleet.status.clone().unwrap_or_default();
    let (namespace, name) = (fleet.namespace().unwrap_or_default(), fleet.name_any());
    let ready = judge::condition(&status.conditions, "Ready").map(|condition| condition.status == "True");
    let of_fleet = |rotation: &&Rotation| {
        rotation.namespace().as_deref() == Some(&namespace) && rotation.spec.fleet_ref.name == name
    };
    let mine = rotations
        .iter()
        .filter(of_fleet)
        .filter(|r| !is_over(phase(r.status.as_ref())));
    // The Fleet says which of several that have not ended runs; before it does, any is better than none.
    let running = mine.max_by_key(|r| status.current_rotation.as_deref() == r.metadata.name.as_deref());
    Line {
        ready,
        ca: fleet.spec.issuer_ref.name.clone(),
        broker: fleet.spec.broker_ref.name.clone(),
        counts: status.counts,
        next_due: status.next_due,
        rotation: running.map(of_rotation),
        namespace,
        name,
    }
}

fn of_rotation(rotation: &Rotation) -> Running {
    let status = rotation.status.clone().unwrap_or_default();
    let counts = status.counts;
    Running {
        name: rotation.name_any(),
        phase: format!("{:?}", phase(Some(&status))),
        wave: status.progress.unwrap_or_default(),
        planned: counts.planned,
        confirmed: counts.confirmed,
        in_flight: counts.in_flight,
        failures: counts.failures,
        losses: counts.losses,
        offline: counts.offline,
        eta: status.eta,
    }
}

/// Width of a bar in the table.
const BAR: usize = 20;

impl Show for Status {
    fn table(&self, wide: bool) -> String {
        if self.fleets.is_empty() && self.attention.is_empty() {
            return "no Fleets here; -A looks in all namespaces\n".to_owned();
        }
        let mut head = Vec::new();
        if self.namespaces {
            head.push("NAMESPACE");
        }
        head.extend([
            "FLEET", "READY", "DEVICES", "ENROLLED", "OFFLINE", "FAILED", "EXPIRED", "NEXT-DUE", "ROTATION", "PHASE",
            "WAVE", "PROGRESS",
        ]);
        if wide {
            head.extend(["CA", "BROKER", "IN-FLIGHT", "WRONG", "LOST", "ETA"]);
        }
        let mut table = Table::new(head);
        for fleet in &self.fleets {
            let mut row = Vec::new();
            if self.namespaces {
                row.push(fleet.namespace.clone());
            }
            let ready = match fleet.ready {
                Some(true) => "yes",
                Some(false) => "no",
                None => "-",
            };
            let c = fleet.counts;
            row.extend([fleet.name.clone(), ready.to_owned()]);
            row.extend([c.total, c.enrolled, c.offline, c.failed, c.expired].map(|n| n.to_string()));
            row.push(from_now(fleet.next_due.as_ref(), self.now));
            row.extend(self.running(fleet, wide));
            table.row(row);
        }
        let mut text = table.text();
        if !self.attention.is_empty() {
            text.push_str("\nNeeds a person:\n");
            text.push_str(&finding::text(&self.attention));
        }
        text
    }

    fn names(&self) -> Vec<String> {
        self.fleets
            .iter()
            .map(|fleet| output::name_of("Fleet", &fleet.name))
            .collect()
    }
}

impl Status {
    fn running(&self, fleet: &Line, wide: bool) -> Vec<String> {
        let mut cells = match &fleet.rotation {
            None => vec!["-".to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned()],
            Some(r) => {
                let bar = bar(r.confirmed, r.failures + r.losses, r.in_flight, r.planned, BAR);
                let progress = format!(
                    "[{bar}] {}% {}/{}",
                    percent(r.confirmed, r.planned),
                    r.confirmed,
                    r.planned
                );
                vec![r.name.clone(), r.phase.clone(), r.wave.clone(), progress]
            }
        };
        if wide {
            cells.extend([fleet.ca.clone(), fleet.broker.clone()]);
            let dash = || "-".to_owned();
            match &fleet.rotation {
                None => cells.extend([dash(), dash(), dash(), dash()]),
                Some(r) => {
                    cells.extend([r.in_flight, r.failures, r.losses].map(|n| n.to_string()));
                    cells.push(from_now(r.eta.as_ref(), self.now));
                }
            }
        }
        cells
    }
}

/// `status`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let mut objects = Objects::read(session, arguments.all_namespaces).await?;
    if !arguments.fleets.is_empty() {
        only(&mut objects, &arguments.fleets)?;
    }
    let status = sum_up(objects, arguments.all_namespaces, Timestamp::now());
    output::show(&status, arguments.output.format)
}

/// Keeps these Fleets and what belongs to them.
fn only(objects: &mut Objects, names: &[String]) -> Result<()> {
    let wanted: BTreeSet<&str> = names.iter().map(|name| without_kind(name)).collect();
    objects
        .fleets
        .retain(|fleet| wanted.contains(fleet.name_any().as_str()));
    let found: BTreeSet<String> = objects.fleets.iter().map(kube::ResourceExt::name_any).collect();
    if let Some(missing) = wanted.iter().find(|name| !found.contains(**name)) {
        return Err(Error::NotFound(format!(
            "there is no Fleet {missing} here; -n and -A say where to look"
        )));
    }
    objects
        .rotations
        .retain(|r| wanted.contains(r.spec.fleet_ref.name.as_str()));
    let cas: BTreeSet<_> = objects
        .fleets
        .iter()
        .map(|fleet| fleet.spec.issuer_ref.name.clone())
        .collect();
    let brokers: BTreeSet<_> = objects
        .fleets
        .iter()
        .map(|fleet| fleet.spec.broker_ref.name.clone())
        .collect();
    objects.authorities.retain(|ca| cas.contains(&ca.name_any()));
    objects.brokers.retain(|broker| brokers.contains(&broker.name_any()));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, from_value, json};

    use super::*;
    use crate::output::{Format, render};

    fn fleet(name: &str, status: &Value) -> Fleet {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": name, "namespace": "plant"},
            "spec": {"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt"}}, "status": status,
        }))
        .unwrap()
    }

    fn rotation(name: &str, fleet: &str, status: &Value) -> Rotation {
        from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": {"name": name, "namespace": "plant"},
            "spec": {"fleetRef": {"name": fleet}}, "status": status,
        }))
        .unwrap()
    }

    fn status() -> Status {
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-21T11:00:00Z"}]);
        let objects = Objects {
            fleets: vec![
                fleet("pumps", &json!({"counts": {"total": 3}})),
                fleet(
                    "meters",
                    &json!({"conditions": ready, "counts": {"total": 500, "enrolled": 500}, "currentRotation": "meters-7", "nextDue": "2026-11-21T17:00:00Z"}),
                ),
            ],
            rotations: vec![
                rotation("meters-6", "meters", &json!({"phase": "Complete"})),
                rotation("meters-8", "meters", &json!({"phase": "Pending"})),
                rotation(
                    "meters-7",
                    "meters",
                    &json!({"phase": "Running", "progress": "2/3 early", "counts": {"planned": 500, "confirmed": 125, "failures": 1}}),
                ),
            ],
            authorities: vec![],
            brokers: vec![],
        };
        sum_up(objects, false, "2026-11-21T12:00:00Z".parse().unwrap())
    }

    #[test]
    fn a_fleet_is_a_line_with_the_rotation_that_runs() {
        let text = status().table(false);
        let line = text.lines().find(|line| line.starts_with("meters")).unwrap();
        let cells: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            cells,
            [
                "meters",
                "yes",
                "500",
                "500",
                "0",
                "0",
                "0",
                "in",
                "5h",
                "meters-7",
                "Running",
                "2/3",
                "early",
                "[#####x..............]",
                "25%",
                "125/500"
            ]
        );
        assert!(text.lines().any(|line| line.starts_with("pumps    -")), "{text}");
    }

    #[test]
    fn every_format_says_the_same_fleets() {
        let status = status();
        let json: Value = serde_json::from_str(&render(&status, Format::Json).unwrap()).unwrap();
        assert_eq!(json["fleets"][0]["name"], "meters");
        assert_eq!(json["fleets"][0]["rotation"]["confirmed"], 125);
        assert!(render(&status, Format::Yaml).unwrap().contains("name: meters-7"));
        assert_eq!(
            render(&status, Format::Name).unwrap(),
            "fleet.certwave.dev/meters\nfleet.certwave.dev/pumps\n"
        );
        assert!(render(&status, Format::Wide).unwrap().contains("BROKER"));
    }
}
