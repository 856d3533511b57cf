//! Grafana's dashboards of `dashboards/`: read, asked of a Prometheus, and drawn.
//!
//! Grafana itself is not at hand where the tests run. What is drawn here is what a dashboard's JSON says over what a Prometheus
//! answers, in a plainer hand: layout, titles, units, legends, colours of thresholds and mappings are those of the JSON.

mod ask;
mod chart;
mod draw;
mod model;
mod paint;
mod units;

pub use ask::{Asked, Scope, ask};
pub use draw::draw;
pub use model::{Dashboard, Panel, Target};
