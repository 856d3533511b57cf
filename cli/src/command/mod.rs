//! The commands. Each module has the arguments of one, what it decides (pure) and what it does.

pub mod bundle;
pub mod completion;
pub mod control;
pub mod doctor;
pub mod expiring;
pub mod export;
pub mod import;
pub mod inspect;
pub mod label;
pub mod preview;
pub mod release;
pub mod revoke;
pub mod rotate;
pub mod status;
pub mod wait;
pub mod watch;

use crate::arguments::{Arguments, Command};
use crate::session::Session;
use crate::{Error, Result};

/// Carries out what the command line says.
pub(crate) async fn run(arguments: Arguments) -> Result<()> {
    let connection = arguments.connection;
    // What needs no cluster must not ask for one.
    let command = match arguments.command {
        Command::Completion(arguments) => return completion::script(&arguments),
        Command::Complete(words) => return completion::candidates(&words, &connection).await,
        other => other,
    };
    let session = Session::open(&connection).await?;
    match command {
        Command::Status(a) => status::run(&session, &a).await,
        Command::Watch(a) => watch::run(&session, &a).await,
        Command::Preview(a) => preview::run(&session, &a).await,
        Command::Rotate(a) => rotate::run(&session, &a).await,
        Command::Approve(a) => control::approve(&session, &a).await,
        Command::Pause(a) => control::pause(&session, &a).await,
        Command::Resume(a) => control::resume(&session, &a).await,
        Command::Abort(a) => control::abort(&session, &a).await,
        Command::Retry(a) => control::retry(&session, &a).await,
        Command::Rollback(a) => control::rollback(&session, &a).await,
        Command::Revoke(a) => revoke::revoke(&session, &a).await,
        Command::Hold(a) => revoke::hold(&session, &a).await,
        Command::Release(a) => release::run(&session, &a).await,
        Command::Inspect(a) => inspect::run(&session, &a).await,
        Command::Expiring(a) => expiring::run(&session, &a).await,
        Command::Doctor(a) => doctor::run(&session, &a).await,
        Command::Import(a) => import::run(&session, &a).await,
        Command::Export(a) => export::run(&session, &a).await,
        Command::Bundle(a) => bundle::run(&session, &a).await,
        Command::Completion(_) | Command::Complete(_) => Err(Error::Usage("needs no cluster".to_owned())),
    }
}
