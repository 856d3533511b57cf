//! `inspect`: one device, and all that is known to have happened to it.

mod report;

use certwave_crds::{Broker, DeviceCertificate, Fleet};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};

use crate::history::{self, ControllerArguments, History};
use crate::output::{self, OutputArgument, say};
use crate::session::Session;
use crate::{Error, Result};

use report::{Happened, Report};

/// `inspect`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The device, by the name of its object or by its deviceId.
    device: String,
    /// At most so many lines of history, the latest.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Do not ask the controller for what the ledger has; events alone, which live for an hour or so.
    #[arg(long)]
    no_ledger: bool,
    #[command(flatten)]
    controller: ControllerArguments,
    #[command(flatten)]
    output: OutputArgument,
}

/// `inspect`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let device = session.device(&arguments.device).await?;
    let events = events(session, &device).await;
    let ledger = if arguments.no_ledger {
        Err(Error::Refused("not asked for (--no-ledger)".to_owned()))
    } else {
        ledger(session, arguments, &device).await
    };
    let mut history = Vec::new();
    match &events {
        Ok(events) => history.extend(events.iter().filter_map(Happened::of_event)),
        Err(error) => say(&format!("note: events are not shown: {error}")),
    }
    if let Ok(ledger) = &ledger {
        history.extend(ledger.lines.iter().filter_map(Happened::of_line));
        if ledger.more {
            say("note: there are older lines in the ledger; --limit shows more");
        }
    }
    if let (Err(error), false) = (&ledger, arguments.no_ledger) {
        say(&format!(
            "note: what the ledger has is not shown, as the controller's pod is not reached: {error}. To read it takes \
             `create` of pods/portforward in namespace {}; docs/cli.md says more",
            arguments.controller.namespace.name
        ));
    }
    let report = Report::of(
        device,
        history,
        ledger.err().map(|error| error.to_string()),
        Timestamp::now(),
    );
    output::show(&report, arguments.output.format)
}

async fn ledger(session: &Session, arguments: &Arguments, device: &DeviceCertificate) -> Result<History> {
    let fleet: Fleet = session.api().get(&device.spec.fleet_ref.name).await?;
    let reference = &fleet.spec.broker_ref;
    let namespace = reference.namespace.as_deref().unwrap_or(session.namespace());
    let broker: Broker = Api::namespaced(session.client(), namespace)
        .get(&reference.name)
        .await?;
    history::read(
        session,
        &arguments.controller,
        &broker.spec.id,
        &device.spec.device_id,
        arguments.limit,
    )
    .await
}

async fn events(session: &Session, device: &DeviceCertificate) -> Result<Vec<Event>> {
    let about = format!(
        "involvedObject.kind=DeviceCertificate,involvedObject.name={}",
        device.name_any()
    );
    Ok(session
        .api::<Event>()
        .list(&ListParams::default().fields(&about))
        .await?
        .items)
}
