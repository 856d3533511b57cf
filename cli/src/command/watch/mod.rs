//! `watch`: rotations, live.

mod draw;
mod frame;
mod live;

use std::collections::BTreeMap;
use std::time::Duration;

use certwave_crds::{Fleet, Rotation, RotationPhase};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::output::{self, print};
use crate::progress::{Rate, is_over, phase, waits_for_a_person};
use crate::session::{Session, without_kind};
use crate::{Error, Result};

use frame::Frame;

/// Width of a frame that is printed where nobody says how wide the terminal is.
const WIDTH: u16 = 110;

/// `watch`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A Rotation, or a Fleet; all that run where left out.
    target: Option<String>,
    /// Of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "target")]
    all_namespaces: bool,
    /// Print what is to be seen now, and end.
    #[arg(long)]
    once: bool,
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
}

/// What is looked at, and how fast it went so far.
struct Watched<'a> {
    session: &'a Session,
    all: bool,
    /// The Rotation, or the Fleet.
    target: Option<String>,
    rates: BTreeMap<String, Rate>,
}

impl Watched<'_> {
    /// Looks once, at Fleets and Rotations only: a fleet's devices are not read.
    async fn look(&mut self) -> Result<Frame> {
        let (fleets, rotations) = tokio::try_join!(
            self.session.list::<Fleet>(self.all),
            self.session.list::<Rotation>(self.all)
        )?;
        let now = Timestamp::now();
        for rotation in &rotations {
            if let Some(status) = &rotation.status {
                let ended = status.counts.confirmed + status.counts.failures + status.counts.losses;
                let rate = self.rates.entry(rotation.uid().unwrap_or_default()).or_default();
                rate.saw(now, ended);
            }
        }
        Frame::of(&fleets, &rotations, self.target.as_deref(), &self.rates, now).ok_or_else(|| {
            let target = self.target.as_deref().unwrap_or_default();
            let namespace = self.session.namespace();
            Error::NotFound(format!(
                "namespace {namespace} has no Rotation and no Fleet called {target}"
            ))
        })
    }
}

/// `watch`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let mut watched = Watched {
        session,
        all: arguments.all_namespaces,
        target: arguments
            .target
            .as_deref()
            .map(|target| without_kind(target).to_owned()),
        rates: BTreeMap::new(),
    };
    let interval = Duration::from_secs(arguments.interval);
    if arguments.once {
        let frame = watched.look().await?;
        let size = output::on_terminal().then(ratatui::crossterm::terminal::size);
        let width = size
            .and_then(std::result::Result::ok)
            .map_or(WIDTH, |(width, _)| width.max(60));
        return print(&draw::text(&frame, width));
    }
    if output::on_terminal() {
        return live::run(&mut watched, interval).await;
    }
    let Some(target) = &arguments.target else {
        return Err(Error::Usage(
            "there is no terminal to draw on: give --once, or a Rotation to follow to its end line by line".to_owned(),
        ));
    };
    let rotation = session.rotation(target).await?;
    to_the_end(session, &rotation.name_any()).await
}

/// Prints a line for each change until the Rotation is over, or waits for a person.
///
/// # Errors
/// [`Error::Found`] unless it is complete then.
pub(super) async fn to_the_end(session: &Session, name: &str) -> Result<()> {
    let rotations = session.api::<Rotation>();
    let (mut rate, mut said) = (Rate::default(), String::new());
    loop {
        let rotation = rotations.get(name).await?;
        let (now, phase) = (Timestamp::now(), phase(rotation.status.as_ref()));
        let status = rotation.status.unwrap_or_default();
        rate.saw(
            now,
            status.counts.confirmed + status.counts.failures + status.counts.losses,
        );
        let line = frame::line(name, &status);
        if line != said {
            print(&format!(
                "{} {line}{}\n",
                crate::time::at(now),
                frame::pace(&rate, &status)
            ))?;
            said = line;
        }
        match phase {
            RotationPhase::Complete => return Ok(()),
            other if is_over(other) || waits_for_a_person(other) => {
                return Err(Error::Found(frame::why_not(name, &status)));
            }
            _ => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
