//! `import`: declares devices from a file.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use certwave_crds::DeviceCertificate;
use clap::ValueEnum as _;
use futures::StreamExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::export::Form;
use super::export::rows::{self, Row};
use crate::output::{print, say};
use crate::session::{Session, without_kind};
use crate::{Error, Result};

/// Objects on their way at the same time.
const AT_ONCE: usize = 16;
/// Faults that are printed; more help nobody.
const SHOWN: usize = 20;
/// Whose fields these are: what an import no longer says goes, and what others wrote stays.
const MANAGER: &str = "kubectl-certwave-import";

/// `import`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// The file; `-` is standard input. CSV with the columns deviceId, fleet, name and `labels.<name>`, or a JSON list.
    file: PathBuf,
    /// The form; by the file's ending where left out.
    #[arg(long, value_enum)]
    form: Option<Form>,
    /// The Fleet of devices for which the file names none.
    #[arg(long)]
    fleet: Option<String>,
    /// Let the API server check everything, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// What became of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Created,
    Changed,
    Unchanged,
}

/// What became of all.
#[derive(Debug, Default)]
struct Sum {
    created: usize,
    changed: usize,
    unchanged: usize,
    refused: usize,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            created,
            changed,
            unchanged,
            refused,
        } = self;
        write!(
            f,
            "{created} created, {changed} changed, {unchanged} unchanged, {refused} refused"
        )
    }
}

/// `import`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let form = form(arguments)?;
    let text = read(&arguments.file)?;
    let mut rows = match form {
        Form::Csv => rows::from_csv(&text)?,
        Form::Json => rows::from_json(&text)?,
    };
    for row in rows.iter_mut().filter(|row| row.fleet.is_none()) {
        row.fleet = arguments.fleet.as_deref().map(|fleet| without_kind(fleet).to_owned());
    }
    let faults = rows::faults(&rows);
    if !faults.is_empty() {
        return Err(Error::Refused(format!("{}\nNothing was changed", listed(&faults))));
    }
    let params = PatchParams {
        dry_run: arguments.dry_run,
        ..PatchParams::apply(MANAGER)
    };
    let api = session.api::<DeviceCertificate>();
    let applied = futures::stream::iter(rows)
        .map(|row| apply(&api, &params, row))
        .buffer_unordered(AT_ONCE);
    let (sum, faults) = add_up(applied).await?;
    let tried = if arguments.dry_run {
        " (dry run: nothing was changed)"
    } else {
        ""
    };
    print(&format!("{sum}{tried}\n"))?;
    if faults.is_empty() {
        return Ok(());
    }
    say(&listed(&faults));
    Err(Error::Refused(format!(
        "{} devices were refused; mend the file, and import it again: what is declared stays",
        faults.len()
    )))
}

/// Adds up; what goes wrong for all ends it.
async fn add_up(applied: impl futures::Stream<Item = (String, Result<Outcome>)>) -> Result<(Sum, Vec<String>)> {
    let (mut sum, mut faults) = (Sum::default(), Vec::new());
    let mut applied = std::pin::pin!(applied);
    while let Some((name, outcome)) = applied.next().await {
        match outcome {
            Ok(Outcome::Created) => sum.created += 1,
            Ok(Outcome::Changed) => sum.changed += 1,
            Ok(Outcome::Unchanged) => sum.unchanged += 1,
            Err(error @ (Error::Refused(_) | Error::Api(_))) => {
                sum.refused += 1;
                faults.push(format!("{name}: {error}"));
            }
            Err(error) => {
                say(&format!("stopped after {sum}"));
                return Err(error);
            }
        }
    }
    faults.sort();
    Ok((sum, faults))
}

async fn apply(api: &Api<DeviceCertificate>, params: &PatchParams, row: Row) -> (String, Result<Outcome>) {
    let name = row.object_name();
    let applied = apply_one(api, params, &name, &row).await;
    (name, applied)
}

async fn apply_one(api: &Api<DeviceCertificate>, params: &PatchParams, name: &str, row: &Row) -> Result<Outcome> {
    let before = api.get_metadata_opt(name).await?;
    let mut spec = json!({ "deviceId": row.device_id, "fleetRef": { "name": row.fleet } });
    // An API server makes null of a map that is applied empty where it was not.
    if !row.labels.is_empty() {
        spec["labels"] = json!(row.labels);
    }
    let object = json!({
        "apiVersion": "certwave.dev/v1alpha1", "kind": "DeviceCertificate", "metadata": { "name": name }, "spec": spec,
    });
    let after = api.patch(name, params, &Patch::Apply(object)).await?;
    Ok(match before {
        None => Outcome::Created,
        Some(before) if before.metadata.generation == after.metadata.generation => Outcome::Unchanged,
        Some(_) => Outcome::Changed,
    })
}

fn form(arguments: &Arguments) -> Result<Form> {
    if let Some(form) = arguments.form {
        return Ok(form);
    }
    let ending = arguments
        .file
        .extension()
        .and_then(|ending| ending.to_str())
        .unwrap_or_default();
    Form::from_str(ending, true).map_err(|_| {
        Error::Usage(format!(
            "{}: neither .csv nor .json; say --form",
            arguments.file.display()
        ))
    })
}

fn read(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(Error::file(path))?;
        return Ok(text);
    }
    std::fs::read_to_string(path).map_err(Error::file(path))
}

fn listed(faults: &[String]) -> String {
    let mut shown: Vec<_> = faults.iter().take(SHOWN).cloned().collect();
    if faults.len() > SHOWN {
        shown.push(format!("and {} more", faults.len() - SHOWN));
    }
    shown.join("\n")
}
