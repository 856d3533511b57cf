//! `kubectl certwave`: the program itself, against a real API server, controller, broker and devices.

pub(crate) mod bundle;
mod devices;
mod doctor;
pub(crate) mod plugin;
mod rights;
mod rotations;
mod transfer;
