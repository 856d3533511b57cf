//! `certwave-agent status`.

use std::fmt;

use anyhow::Context as _;
use certwave_protocol::ids::{BrokerId, DeviceId, Fingerprint, JobId};
use certwave_protocol::message::{Progress, Slot};
use serde::Serialize;
use time::OffsetDateTime;

use super::live::{Live, now};
use crate::certificate::Leaf;
use crate::config::AgentConfig;
use crate::disk::FileDisk;
use crate::journal::Phase;
use crate::store::{Storage as _, Store};

/// Where a device stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    device: DeviceId,
    broker: Option<BrokerId>,
    /// The agent runs.
    running: bool,
    active: Option<Slot>,
    slots: Vec<SlotStatus>,
    trust_bundle: Option<Fingerprint>,
    job: Option<JobStatus>,
    enrolling: bool,
    clock: i64,
    live: Option<Live>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct SlotStatus {
    slot: Slot,
    confirmed: bool,
    fingerprint: Fingerprint,
    serial: String,
    issuer: String,
    not_before: i64,
    not_after: i64,
}

#[derive(Debug, Serialize)]
struct JobStatus {
    id: JobId,
    progress: Progress,
    code: Option<String>,
    alert: Option<String>,
}

impl Status {
    /// Reads it from the device's files; changes nothing.
    pub fn read(config: &AgentConfig) -> anyhow::Result<Self> {
        let look = FileDisk::look(&config.state_dir);
        let store = Store::new(look.with_context(|| format!("cannot read {}", config.state_dir.display()))?);
        let journal = store.journal()?;
        let live = Live::read(&config.state_dir);
        let mut slots = Vec::new();
        for slot in [Slot::A, Slot::B] {
            let Some(held) = journal.as_ref().and_then(|j| j.held(slot)) else {
                continue;
            };
            let chain = store.certificate(slot)?;
            let Some(leaf) = chain.first() else { continue };
            let leaf = Leaf::read(leaf)?;
            slots.push(SlotStatus {
                slot,
                confirmed: held.confirmed,
                fingerprint: leaf.fingerprint,
                serial: leaf.serial,
                issuer: leaf.issuer,
                not_before: leaf.not_before,
                not_after: leaf.not_after,
            });
        }
        let job = journal.as_ref().and_then(|j| {
            let view = j.view(live.as_ref().is_some_and(|l| l.trial))?;
            let (code, alert) = match &j.job.as_ref()?.phase {
                Phase::RolledBack { code, alert } => (Some(code.to_string()), alert.clone()),
                Phase::Failed { code } => (Some(code.to_string()), None),
                _ => (None, None),
            };
            Some(JobStatus {
                id: view.id,
                progress: view.progress,
                code,
                alert,
            })
        });
        Ok(Self {
            device: config.device_id.clone(),
            broker: config.setup().ok().map(|setup| setup.config.broker),
            running: live.as_ref().is_some_and(Live::is_running),
            active: journal.as_ref().and_then(|j| j.active),
            slots,
            trust_bundle: journal.as_ref().map(crate::journal::Journal::bundle),
            job,
            enrolling: journal.is_some_and(|j| j.enrolment.is_some()),
            clock: now(),
            live,
        })
    }
}

/// A Unix time for people.
pub fn date(seconds: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second()
        ),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "device        {}", self.device)?;
        writeln!(f, "clock         {}", date(self.clock))?;
        writeln!(
            f,
            "agent         {}",
            if self.running { "running" } else { "not running" }
        )?;
        if let Some(live) = &self.live {
            let how = match (self.running && live.connected, live.slot) {
                (true, Some(slot)) => format!("yes, with slot {slot:?}{}", if live.trial { ", on trial" } else { "" }),
                _ => "no".to_owned(),
            };
            writeln!(f, "connected     {how}")?;
            if let Some(at) = live.last_connect {
                writeln!(f, "last connect  {}", date(at))?;
            }
            if let (Some(at), Some(error)) = (live.last_failure, &live.last_error) {
                writeln!(f, "last failure  {}: {error}", date(at))?;
            }
            if let Some(alert) = &live.last_alert {
                writeln!(f, "last alert    {alert}")?;
            }
            if let (Some(at), Some(code)) = (live.last_ignored_at, live.last_ignored) {
                writeln!(f, "last ignored  {}: {code}", date(at))?;
            }
        }
        if self.slots.is_empty() {
            writeln!(
                f,
                "certificate   none yet{}",
                if self.enrolling { ", enrolling" } else { "" }
            )?;
        }
        for s in &self.slots {
            let mark = if self.active == Some(s.slot) { "active" } else { "" };
            let confirmed = if s.confirmed { "" } else { "not confirmed" };
            let expired = if s.not_after < self.clock {
                "EXPIRED by this clock"
            } else {
                ""
            };
            let marks: Vec<_> = [mark, confirmed, expired]
                .into_iter()
                .filter(|m| !m.is_empty())
                .collect();
            writeln!(f, "slot {:?}        {}", s.slot, marks.join(", "))?;
            writeln!(f, "  serial      {}", s.serial)?;
            writeln!(f, "  sha-256     {}", s.fingerprint)?;
            writeln!(f, "  issuer      {}", s.issuer)?;
            writeln!(f, "  valid       {} to {}", date(s.not_before), date(s.not_after))?;
        }
        if let Some(bundle) = &self.trust_bundle {
            writeln!(f, "trust bundle  {bundle}")?;
        }
        if let Some(job) = &self.job {
            write!(f, "latest job    {}: {:?}", job.id, job.progress)?;
            for reason in job.code.iter().chain(&job.alert) {
                write!(f, ", {reason}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
