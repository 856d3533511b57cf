//! The custom resources of Certwave (`certwave.dev/v1alpha1`) as Rust types; the YAML in this
//! directory and `docs/crds.md` are generated from them by `cargo run -p certwave-crds --bin crds-gen`.

// What `kubectl explain` shows is plain text, without backticks.
#![allow(clippy::doc_markdown)]
// `KubeSchema` copies each struct, `pub` and all, into a function body.
#![allow(unreachable_pub)]

mod authority;
mod broker;
mod common;
mod decimal;
mod device;
mod duration;
mod fit;
mod fleet;
mod gate;
mod generate;
mod reference;
mod revocation;
mod rotation;
mod rotation_status;
mod rules;
mod schema;
mod strategy;
mod wave;

pub use authority::*;
pub use broker::*;
pub use common::*;
pub use decimal::Decimal;
pub use device::*;
pub use duration::{Duration, ParseDurationError};
pub use fit::{Misfit, misfit};
pub use fleet::*;
pub use gate::*;
pub use generate::{GENERATE_COMMAND, all, files, stale};
pub use reference::reference;
pub use revocation::*;
pub use rotation::*;
pub use rotation_status::*;
pub use strategy::*;
pub use wave::*;

/// The API group of every kind.
pub const GROUP: &str = "certwave.dev";
/// The version served.
pub const VERSION: &str = "v1alpha1";
