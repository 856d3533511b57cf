//! What people watch: metrics, traces, alerts and their runbooks, dashboards.

mod alerts;
mod conventions;
mod dashboards;
mod names;
mod traces;
mod unscraped;
