//! `export`: the declared devices as a file that `import` takes.

pub(super) mod rows;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use certwave_crds::DeviceCertificate;
use clap::ValueEnum;
use kube::api::ListParams;

use super::label::{LabelArgument, matches};
use crate::session::{Session, pages, without_kind};
use crate::{Error, Result};

use rows::Row;

/// In which form devices are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A line for each device, `labels.<name>` for each label.
    Csv,
    /// A list of objects.
    Json,
}

/// `export`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// Devices of this Fleet only.
    #[arg(long)]
    fleet: Option<String>,
    #[command(flatten)]
    labels: LabelArgument,
    /// The form.
    #[arg(long = "output", short = 'o', value_enum, default_value_t = Form::Csv, value_name = "FORM")]
    form: Form,
    /// Where to; standard output where left out.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: Option<PathBuf>,
}

/// `export`.
pub(crate) async fn run(session: &Session, arguments: &Arguments) -> Result<()> {
    let labels = arguments.labels.labels()?;
    let mut params = ListParams::default();
    if let Some(fleet) = &arguments.fleet {
        params = params.fields(&format!("spec.fleetRef.name={}", without_kind(fleet)));
    }
    let mut found = Vec::new();
    // All are read before a line is written, as the columns are the labels of all.
    pages(&session.api::<DeviceCertificate>(), &params, |page| {
        let selected = page.iter().filter(|device| matches(&labels, &device.spec.labels));
        found.extend(selected.map(Row::of));
    })
    .await?;
    let text = match arguments.form {
        Form::Csv => rows::to_csv(&found)?,
        Form::Json => rows::to_json(&found)?,
    };
    match &arguments.file {
        None => crate::output::print(&text),
        Some(path) => {
            let written = File::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
            written.map_err(|error: io::Error| Error::file(path)(error))
        }
    }
}
