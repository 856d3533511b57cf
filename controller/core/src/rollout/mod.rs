//! Staged rotation: who is rotated when, and when to stop.
//!
//! [`strategy`] is what a Rotation was created with, [`plan`](mod@plan) chooses waves and order once, [`admit`] decides how many
//! devices may start now, [`window`] when the doors are open, [`judge`](mod@judge) looks at what became of those that started
//! and says what follows, [`forecast`](mod@forecast) says when it will be over and who would be too late. All of it is pure:
//! the ledger holds [`run::Run`] and the members, the controller carries the actions out.

pub mod admit;
pub mod forecast;
pub mod gate;
pub mod judge;
pub mod plan;
pub mod run;
pub mod select;
pub mod strategy;
mod timeline;
pub mod window;
