//! `rotate`: a Rotation by hand.
#![allow(clippy::doc_markdown, reason = "people read the help as it is written here")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use certwave_crds::{Fleet, Rotation};
use clap::ValueEnum;
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::label::LabelArgument;
use super::{preview, watch};
use crate::output::ask::{Word, YesArgument, confirm};
use crate::output::{self, OutputArgument, Show as _, say};
use crate::session::{Session, without_kind};
use crate::{Error, Result};

/// What a Rotation by hand is made of.
#[derive(clap::Args, Debug, Clone)]
pub struct Draft {
    /// The Fleet.
    fleet: String,
    #[command(flatten)]
    labels: LabelArgument,
    /// Why.
    #[arg(long, value_enum, default_value_t = Reason::Manual)]
    reason: Reason,
    /// The CA that the fleet moves to, for the reasons CAChange and CACompromise.
    #[arg(long, value_name = "CA")]
    issuer: Option<String>,
    /// Without windows and soak, for the reason CACompromise; budgets hold, and a breach pauses.
    #[arg(long)]
    emergency: bool,
    /// By when all must be confirmed, for the reason CACompromise: 2026-12-01T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    cutoff: Option<Timestamp>,
    /// Devices in flight at once; the Fleet's limit where left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    max_in_flight: Option<i32>,
    /// Jobs sent within a minute; the Fleet's limit where left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=100_000))]
    max_per_minute: Option<i32>,
    /// A Rotation in YAML or JSON whose strategy (waves, limits, windows, gates ...) is taken instead of the Fleet's.
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Why a rotation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reason {
    /// A person asked for it.
    #[value(name = "Manual")]
    Manual,
    /// Certificates are near their end.
    #[value(name = "Expiry")]
    Expiry,
    /// Keys no longer meet the policy.
    #[value(name = "KeyPolicy")]
    KeyPolicy,
    /// The fleet moves to another CA.
    #[value(name = "CAChange")]
    CaChange,
    /// The CA's key is no longer safe.
    #[value(name = "CACompromise")]
    CaCompromise,
}

impl Reason {
    const fn word(self) -> &'static str {
        match self {
            Self::Manual => "Manual",
            Self::Expiry => "Expiry",
            Self::KeyPolicy => "KeyPolicy",
            Self::CaChange => "CAChange",
            Self::CaCompromise => "CACompromise",
        }
    }
}

/// `rotate`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    #[command(flatten)]
    draft: Draft,
    /// The Rotation's name; the Fleet's with a random end where left out.
    #[arg(long)]
    name: Option<String>,
    /// Follow it to its end; exit code 7 unless it is complete.
    #[arg(long, short)]
    wait: bool,
    #[command(flatten)]
    yes: YesArgument,
    #[command(flatten)]
    output: OutputArgument,
}

/// Which run is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Preview,
    Run,
}

impl Draft {
    /// The Fleet's name.
    pub(super) fn fleet(&self) -> &str {
        without_kind(&self.fleet)
    }

    /// The Rotation's spec. Limits replace the Fleet's as a whole, so those that are not named are taken from there.
    pub(super) fn spec(&self, fleet: &Fleet, mode: Mode) -> Result<Value> {
        let moves = matches!(self.reason, Reason::CaChange | Reason::CaCompromise);
        if moves != self.issuer.is_some() {
            return Err(Error::Usage(
                "--issuer names the CA that the fleet moves to: give it with --reason CAChange or CACompromise, and only then".to_owned(),
            ));
        }
        if (self.emergency || self.cutoff.is_some()) && self.reason != Reason::CaCompromise {
            return Err(Error::Usage(
                "--emergency and --cutoff are for --reason CACompromise only".to_owned(),
            ));
        }
        let mut spec = match &self.from {
            Some(path) => strategy_of(path)?,
            None => json!({}),
        };
        spec["fleetRef"] = json!({ "name": self.fleet() });
        spec["reason"] = json!(self.reason.word());
        spec["mode"] = json!(match mode {
            Mode::Preview => "Preview",
            Mode::Run if self.emergency => "Emergency",
            Mode::Run => "Run",
        });
        if let Some(issuer) = &self.issuer {
            spec["issuerRef"] = json!({ "name": without_kind(issuer) });
        }
        if let Some(cutoff) = self.cutoff {
            spec["cutoff"] = json!(cutoff);
        }
        let labels: BTreeMap<String, String> = self.labels.labels()?;
        if !labels.is_empty() {
            spec["selector"] = json!({ "matchLabels": labels });
        }
        for (field, value) in [
            ("maxInFlight", self.max_in_flight),
            ("maxPerMinute", self.max_per_minute),
        ] {
            let Some(value) = value else { continue };
            if spec.get("limits").is_none() {
                spec["limits"] = json!(fleet.spec.rotation.limits);
            }
            spec["limits"][field] = json!(value);
        }
        Ok(spec)
    }
}

/// The strategy of a Rotation in a file: what stands there of whom and why is said on the command line.
fn strategy_of(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
    let unusable = |why: &str| Error::Usage(format!("{}: {why}", path.display()));
    // JSON is YAML.
    let object: Value = serde_saphyr::from_str(&text).map_err(|e| unusable(&format!("not one YAML document: {e}")))?;
    if object["kind"] != "Rotation" {
        return Err(unusable("no Rotation"));
    }
    let mut spec = object["spec"]
        .as_object()
        .cloned()
        .ok_or_else(|| unusable("the Rotation has no spec"))?;
    for field in [
        "fleetRef",
        "reason",
        "mode",
        "issuerRef",
        "selector",
        "cutoff",
        "control",
    ] {
        spec.remove(field);
    }
    Ok(Value::Object(spec))
}

/// A Rotation with this spec, named or to be named.
pub(super) fn object(spec: &Value, name: Option<&str>, prefix: &str) -> Result<Rotation> {
    let metadata = match name {
        Some(name) => json!({ "name": name }),
        None => json!({ "generateName": format!("{prefix}-") }),
    };
    let object =
        json!({ "apiVersion": "certwave.dev/v1alpha1", "kind": "Rotation", "metadata": metadata, "spec": spec });
    serde_json::from_value(object).map_err(|error| Error::Usage(format!("this makes no Rotation: {error}")))
}

/// `rotate`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let draft = &arguments.draft;
    let fleet: Fleet = session.api().get(draft.fleet()).await?;
    let spec = draft.spec(&fleet, Mode::Run)?;
    if !arguments.yes.yes {
        let planned = preview::plan(session, draft, &fleet, preview::PATIENCE).await?;
        say(&planned.table(false));
        if planned.devices() == 0 {
            return Err(Error::Refused(
                "there is no device to rotate; nothing was changed".to_owned(),
            ));
        }
        let question = format!(
            "Replace the certificates of {} of {}, in {}?",
            output::count(planned.devices(), "device"),
            draft.fleet(),
            output::count(planned.waves(), "wave")
        );
        confirm(arguments.yes, &question, Word::Yes)?;
    }
    let rotation = object(&spec, arguments.name.as_deref(), draft.fleet())?;
    let created = session
        .api::<Rotation>()
        .create(&session.post().await, &rotation)
        .await?;
    let name = created.name_any();
    let full = output::name_of("Rotation", &name);
    output::changed(&created, &full, "created", arguments.output.format)?;
    if arguments.wait {
        return watch::to_the_end(session, &name).await;
    }
    say(&format!(
        "The first wave begins within seconds, unless another Rotation of the fleet runs or a window is closed.\n\
         See it by: kubectl certwave watch {name}    Stop it by: kubectl certwave pause {name}"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        draft: Draft,
    }

    fn spec(arguments: &[&str]) -> Result<Value> {
        let fleet = serde_json::from_value(json!({
            "apiVersion": "certwave.dev/v1alpha1", "kind": "Fleet", "metadata": {"name": "meters"},
            "spec": {"issuerRef": {"name": "root"}, "brokerRef": {"name": "mqtt"},
                "rotation": {"limits": {"maxInFlight": 7, "perGroup": {"by": "site"}}}},
        }));
        let line = Line::parse_from(["x"].iter().chain(arguments));
        line.draft.spec(&fleet.unwrap(), Mode::Run)
    }

    #[test]
    fn a_rotation_by_hand_says_only_what_was_asked_for() {
        assert_eq!(
            spec(&["fleet/meters"]).unwrap(),
            json!({"fleetRef": {"name": "meters"}, "reason": "Manual", "mode": "Run"})
        );
        let some = spec(&["meters", "-l", "site=north"]).unwrap();
        assert_eq!(some["selector"], json!({"matchLabels": {"site": "north"}}));
    }

    #[test]
    fn one_limit_leaves_the_fleets_others_as_they_are() {
        let spec = spec(&["meters", "--max-per-minute", "9"]).unwrap();
        assert_eq!(spec["limits"]["maxPerMinute"], 9);
        assert_eq!(spec["limits"]["maxInFlight"], 7);
        assert_eq!(spec["limits"]["perGroup"]["by"], "site");
    }

    #[test]
    fn where_a_fleet_moves_is_said_when_it_moves_and_only_then() {
        assert!(spec(&["meters", "--reason", "CAChange"]).is_err());
        assert!(spec(&["meters", "--issuer", "b"]).is_err());
        assert!(spec(&["meters", "--emergency"]).is_err());
        let moves = spec(&["meters", "--reason", "CACompromise", "--issuer", "b", "--emergency"]).unwrap();
        assert_eq!(
            (&moves["mode"], &moves["issuerRef"]["name"]),
            (&json!("Emergency"), &json!("b"))
        );
    }

    #[test]
    fn of_a_file_the_strategy_is_taken_and_nothing_else() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text =
            "kind: Rotation\nspec:\n  fleetRef: {name: other}\n  mode: Preview\n  waves: [{name: all, percent: 100}]\n";
        std::fs::write(file.path(), text).unwrap();
        let spec = spec(&["meters", "--from", file.path().to_str().unwrap()]).unwrap();
        assert_eq!(spec["fleetRef"]["name"], "meters");
        assert_eq!(spec["mode"], "Run");
        assert_eq!(spec["waves"][0]["name"], "all");
    }
}
