//! `approve`, `pause`, `resume`, `abort`, `retry`, `rollback`: a person's word on a rotation that runs.

mod decide;

use certwave_crds::Rotation;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::wait::heard;
use crate::output::ask::{Word, YesArgument, confirm};
use crate::output::{self, Format, OutputArgument, say};
use crate::session::Session;
use crate::{Error, Result, judge};

pub use decide::Step;

/// Which rotation.
#[derive(clap::Args, Debug)]
pub struct Target {
    /// The Rotation, or the Fleet over which it runs.
    #[arg(value_name = "ROTATION")]
    rotation: String,
    #[command(flatten)]
    output: OutputArgument,
}

/// Why a person does it.
#[derive(clap::Args, Debug)]
pub struct Reason {
    /// Why, such as a ticket's number: it stands in the events and in the audit for good. At most 64 characters, and new each time.
    #[arg(long, short = 'm', value_name = "TEXT")]
    because: Option<String>,
}

impl Reason {
    /// The word; the present time where none was given, as it has to be a new one.
    fn word(&self) -> Result<String> {
        let word = self
            .because
            .clone()
            .unwrap_or_else(|| crate::time::at(Timestamp::now()));
        if word.is_empty() || word.chars().count() > 64 {
            return Err(Error::Usage("--because takes 1 to 64 characters".to_owned()));
        }
        Ok(word)
    }
}

/// `approve`.
#[derive(clap::Args, Debug)]
pub struct Approve {
    #[command(flatten)]
    target: Target,
    /// Approves the waves up to this one, from 1; the wave that waits where left out. May be given ahead.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=20))]
    through_wave: Option<i32>,
    /// The plan that was seen (status.plan.hash): refused if the plan is another one by now. That of the present plan where left out.
    #[arg(long, value_name = "HASH")]
    plan_hash: Option<String>,
    #[command(flatten)]
    yes: YesArgument,
}

/// `pause`.
#[derive(clap::Args, Debug)]
pub struct Pause {
    #[command(flatten)]
    target: Target,
}

/// `resume`, `retry` or `rollback`: an answer for which a person gives a reason.
#[derive(clap::Args, Debug)]
pub struct Answer {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    reason: Reason,
    #[command(flatten)]
    yes: YesArgument,
}

/// `abort`.
#[derive(clap::Args, Debug)]
pub struct Abort {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    yes: YesArgument,
}

pub(crate) async fn approve(session: &Session, arguments: &Approve) -> Result<()> {
    let rotation = session.rotation(&arguments.target.rotation).await?;
    let step = decide::approve(&rotation, arguments.through_wave, arguments.plan_hash.as_deref())?;
    if let Some(question) = &step.question {
        confirm(arguments.yes, question, Word::Yes)?;
    }
    if rotation.spec.control.approval.is_some() && step.control["approval"] == json!(rotation.spec.control.approval) {
        // What stands there was spent by a breach, and only a new approval is taken.
        let without = patch(session, &rotation, &json!({ "approval": null })).await?;
        heard(session, &without, observed).await?;
    }
    let (rotation, taken) = carry_out(session, &rotation, &step, arguments.target.output.format).await?;
    let conditions = rotation.status.map(|status| status.conditions).unwrap_or_default();
    match judge::condition(&conditions, "Approved") {
        Some(c) if taken && c.reason == "ApprovalRefused" => {
            Err(Error::Refused(format!("the approval was not taken: {}", c.message)))
        }
        _ => Ok(()),
    }
}

pub(crate) async fn pause(session: &Session, arguments: &Pause) -> Result<()> {
    let rotation = session.rotation(&arguments.target.rotation).await?;
    let step = decide::pause(&rotation)?;
    carry_out(session, &rotation, &step, arguments.target.output.format)
        .await
        .map(drop)
}

pub(crate) async fn resume(session: &Session, arguments: &Answer) -> Result<()> {
    let word = arguments.reason.word()?;
    ask_and_do(session, &arguments.target, arguments.yes, |rotation| {
        decide::resume(rotation, &word)
    })
    .await
}

pub(crate) async fn abort(session: &Session, arguments: &Abort) -> Result<()> {
    ask_and_do(session, &arguments.target, arguments.yes, decide::abort).await
}

pub(crate) async fn retry(session: &Session, arguments: &Answer) -> Result<()> {
    let word = arguments.reason.word()?;
    ask_and_do(session, &arguments.target, arguments.yes, |rotation| {
        decide::retry(rotation, &word)
    })
    .await
}

pub(crate) async fn rollback(session: &Session, arguments: &Answer) -> Result<()> {
    let word = arguments.reason.word()?;
    ask_and_do(session, &arguments.target, arguments.yes, |rotation| {
        decide::rollback(rotation, &word)
    })
    .await
}

async fn ask_and_do(
    session: &Session,
    target: &Target,
    yes: YesArgument,
    decide: impl FnOnce(&Rotation) -> Result<Step>,
) -> Result<()> {
    let rotation = session.rotation(&target.rotation).await?;
    let step = decide(&rotation)?;
    if let Some(question) = &step.question {
        confirm(yes, question, Word::Yes)?;
    }
    carry_out(session, &rotation, &step, target.output.format)
        .await
        .map(drop)
}

/// Changes `spec.control`, waits until the controller has taken it up, and says what happens next. Answers whether it was taken up.
async fn carry_out(session: &Session, rotation: &Rotation, step: &Step, format: Format) -> Result<(Rotation, bool)> {
    let name = rotation.name_any();
    let changed = patch(session, rotation, &step.control).await?;
    let taken = heard(session, &changed, observed).await?;
    let was_taken = taken.is_some();
    let rotation = taken.unwrap_or(changed);
    output::changed(&rotation, &output::name_of("Rotation", &name), step.done, format)?;
    if was_taken {
        say(&format!("{}\nSee it by: kubectl certwave watch {name}", step.next));
    } else {
        say(
            "It is recorded, but no controller has taken it up yet: `kubectl certwave doctor` says whether one is running",
        );
    }
    Ok((rotation, was_taken))
}

async fn patch(session: &Session, rotation: &Rotation, control: &Value) -> Result<Rotation> {
    session
        .merge(&rotation.name_any(), &json!({ "spec": { "control": control } }))
        .await
}

fn observed(rotation: &Rotation) -> Option<i64> {
    rotation.status.as_ref()?.observed_generation
}
