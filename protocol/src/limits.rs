//! Limits on what a payload may hold, and the fields that each type must bear. Checked when a message is read.

use crate::ids::Fingerprint;
use crate::message::{Body, Job, Payload, Task, Type};

/// Most characters of `agent` in `hello`.
pub const MAX_AGENT: usize = 64;
/// Most characters of `detail` in `status`.
pub const MAX_DETAIL: usize = 256;
/// Most characters of `alert` in `hello` and `status`.
pub const MAX_ALERT: usize = 64;
/// Most characters of `message` in `rejected`.
pub const MAX_TEXT: usize = 256;
/// Most characters of `job_state` in `rejected`, and of an algorithm's name.
pub const MAX_NAME: usize = 32;
/// Most anchors in a trust job.
pub const MAX_ANCHORS: usize = 16;
/// Most intermediates in `certificate`, and most certificates in `x5c`.
pub const MAX_CHAIN: usize = 5;
/// Most key algorithms in a rotate job.
pub const MAX_ALGORITHMS: usize = 8;
/// Largest epoch: what a JSON number holds exactly in every language (RFC 8259 6).
pub const MAX_EPOCH: u64 = (1 << 53) - 1;

/// Checks a payload against the limits; the error names the field.
pub(crate) fn check(payload: &Payload) -> Result<(), &'static str> {
    required(payload)?;
    match &payload.body {
        Body::Hello(hello) => {
            text(&hello.agent, MAX_AGENT, "agent")?;
            optional(hello.alert.as_ref(), MAX_ALERT, "alert")
        }
        Body::Enrol(enrol) => filled(&enrol.csr.0, "csr"),
        Body::Csr(csr) => filled(&csr.csr.0, "csr"),
        Body::Status(status) => {
            optional(status.detail.as_ref(), MAX_DETAIL, "detail")?;
            optional(status.alert.as_ref(), MAX_ALERT, "alert")
        }
        Body::Job(job) => task(job),
        Body::Certificate(certificate) => {
            filled(&certificate.leaf.0, "leaf")?;
            count(certificate.chain.len(), 0, MAX_CHAIN, "chain")?;
            certificate.chain.iter().try_for_each(|der| filled(&der.0, "chain"))
        }
        Body::Rejected(rejected) => {
            text(&rejected.message, MAX_TEXT, "message")?;
            optional(rejected.job_state.as_ref(), MAX_NAME, "job_state")
        }
        Body::Tested(_) | Body::Commit(_) | Body::Reconnect(_) => Ok(()),
    }
}

/// `job`, `nonce` and `epoch` are optional in general and required by type.
fn required(payload: &Payload) -> Result<(), &'static str> {
    let (job, nonce, epoch) = match payload.body.kind() {
        Type::Csr | Type::Tested | Type::Status | Type::Job | Type::Certificate | Type::Commit => (true, true, true),
        Type::Enrol => (false, true, false),
        Type::Reconnect => (false, true, true),
        Type::Rejected => (false, false, true),
        Type::Hello | Type::Online => (false, false, false),
    };
    if job && payload.job.is_none() {
        return Err("job");
    }
    if nonce && payload.nonce.is_none() {
        return Err("nonce");
    }
    match payload.epoch {
        None if epoch => Err("epoch"),
        Some(value) if value > MAX_EPOCH => Err("epoch"),
        _ => Ok(()),
    }
}

fn task(job: &Job) -> Result<(), &'static str> {
    match &job.task {
        Task::Rotate { algorithms } => {
            count(algorithms.len(), 1, MAX_ALGORITHMS, "algorithms")?;
            algorithms
                .iter()
                .try_for_each(|name| text(name, MAX_NAME, "algorithms"))
        }
        Task::Trust { anchors, bundle } => {
            count(anchors.len(), 1, MAX_ANCHORS, "anchors")?;
            anchors.iter().try_for_each(|der| filled(&der.0, "anchors"))?;
            if Fingerprint::of_bundle(anchors) == *bundle {
                Ok(())
            } else {
                Err("bundle")
            }
        }
        Task::Rollback { .. } | Task::Unknown => Ok(()),
    }
}

fn text(value: &str, most: usize, field: &'static str) -> Result<(), &'static str> {
    if value.chars().count() <= most {
        Ok(())
    } else {
        Err(field)
    }
}

fn optional(value: Option<&String>, most: usize, field: &'static str) -> Result<(), &'static str> {
    value.map_or(Ok(()), |value| text(value, most, field))
}

fn filled(value: &[u8], field: &'static str) -> Result<(), &'static str> {
    if value.is_empty() { Err(field) } else { Ok(()) }
}

fn count(n: usize, least: usize, most: usize, field: &'static str) -> Result<(), &'static str> {
    if (least..=most).contains(&n) {
        Ok(())
    } else {
        Err(field)
    }
}
