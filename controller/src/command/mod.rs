//! Commands that belong beside the operator.

pub mod broker_config;
pub mod claim;
