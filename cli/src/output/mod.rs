//! What is printed: tables for people, objects for programs.

pub mod ask;
mod table;

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde::Serialize;

use crate::{Error, Result};

pub use table::Table;

/// How the answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A table.
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names alone, as kubectl takes them: `fleet.certwave.dev/meters`.
    Name,
}

/// `-o`.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct OutputArgument {
    /// How the answer is printed.
    #[arg(long = "output", short = 'o', value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub format: Format,
}

/// What a command has to say, in each of the ways.
pub trait Show: Serialize {
    /// As tables and lines for people; with more columns where `wide`.
    fn table(&self, wide: bool) -> String;
    /// The names of what is shown, `<kind>.certwave.dev/<name>`.
    fn names(&self) -> Vec<String>;
}

/// What is printed, in this way.
///
/// # Errors
/// When it cannot be written as JSON or YAML.
pub fn render(answer: &impl Show, format: Format) -> Result<String> {
    let refused = |error: &dyn std::fmt::Display| Error::Api(format!("the answer cannot be written: {error}"));
    Ok(match format {
        Format::Table => answer.table(false),
        Format::Wide => answer.table(true),
        Format::Json => serde_json::to_string_pretty(answer).map_err(|e| refused(&e))? + "\n",
        Format::Yaml => serde_saphyr::to_string(answer).map_err(|e| refused(&e))?,
        Format::Name => answer.names().into_iter().map(|name| name + "\n").collect(),
    })
}

/// Prints the answer in this way.
///
/// # Errors
/// When it cannot be written.
pub fn show(answer: &impl Show, format: Format) -> Result<()> {
    print(&render(answer, format)?)
}

/// Prints to standard output. Whoever reads no more has had enough, which is no error.
///
/// # Errors
/// When it cannot be written, as on a full disk.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::file("standard output".as_ref())),
    }
}

/// Prints what became of an object: `<name> <done>`, or the object.
///
/// # Errors
/// When it cannot be written.
pub fn changed(object: &impl Serialize, name: &str, done: &str, format: Format) -> Result<()> {
    let refused = |error: &dyn std::fmt::Display| Error::Api(format!("the object cannot be written: {error}"));
    match format {
        Format::Table | Format::Wide => print(&format!("{name} {done}\n")),
        Format::Name => print(&format!("{name}\n")),
        Format::Json => print(&(serde_json::to_string_pretty(object).map_err(|e| refused(&e))? + "\n")),
        Format::Yaml => print(&serde_saphyr::to_string(object).map_err(|e| refused(&e))?),
    }
}

/// Says something beside the answer, on standard error: what happens next, what is waited for.
pub fn say(text: &str) {
    eprintln!("{text}");
}

/// Whether people look at standard output.
pub fn on_terminal() -> bool {
    io::stdout().is_terminal()
}

/// `1 device`, `2 devices`.
pub fn count(number: i64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `<kind>.certwave.dev/<name>`, as kubectl takes it.
pub fn name_of(kind: &str, name: &str) -> String {
    format!("{}.{}/{name}", kind.to_lowercase(), certwave_crds::GROUP)
}
