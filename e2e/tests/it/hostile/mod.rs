//! Whoever speaks badly, lies or poses as somebody else gets a clear answer, or none, and changes nothing.
//!
//! One stack serves all of it: API server, broker with the generated configuration, controller. Each test has a fleet
//! of its own. The devices are played here, so that each message is under control.

mod acl;
mod broker;
mod claims;
mod device;
mod envelopes;
mod keys;
mod line;
mod lost;
mod order;
mod plant;
mod requests;
mod revoked;
mod secrets;
