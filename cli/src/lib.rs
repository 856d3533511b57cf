//! `kubectl certwave`: what people see of fleets, rotations and revocations, and what they ask for.
//!
//! Decisions and words are pure functions of what the API server said and of the time; [`session`] and the `run` functions of
//! [`command`] are the edge. Everything that is asked for is a change of an object, as the docs write it with kubectl: the plugin
//! has no rights of its own, and nothing but `inspect` speaks to the controller itself.

pub mod arguments;
pub mod command;
pub mod error;
pub mod finding;
pub mod history;
pub mod judge;
pub mod krew;
pub mod output;
pub mod progress;
pub mod session;
pub mod time;

pub use arguments::Arguments;
pub use error::Error;

/// What may go wrong is an [`Error`], which knows the exit code.
pub type Result<T> = std::result::Result<T, Error>;

/// Carries out what the command line says.
///
/// # Errors
/// See [`Error`].
pub async fn run(arguments: Arguments) -> Result<()> {
    command::run(arguments).await
}
