//! A model checker over the real transition functions of both sides.
//!
//! `certwave_core::step`, `certwave_core::retire` and `certwave_agent::machine` run as they are; around them stands a small copy of
//! what carries their answers out: the engine ([`controller`], [`retiring`]) and the [`ledger`], disk, timers and connection ([`device`]), a network
//! that loses, doubles, delays and reorders ([`message`]). [`model`] says what may happen next, [`properties`] what must hold,
//! [`settle`] what must come of it, [`scenario`] how far a search goes. [`mutant`] makes mistakes on purpose: each must be found.
//!
//! Time stands still and any deadline may pass at any moment, so nothing depends on how long things take. Keys, certificates,
//! nonces and connections are small numbers; signatures cannot be forged.

pub mod breach;
pub mod controller;
pub mod device;
pub mod ledger;
pub mod message;
pub mod model;
pub mod mutant;
pub mod properties;
pub mod retiring;
pub mod scenario;
pub mod search;
pub mod settle;
pub mod state;
pub mod symbols;
