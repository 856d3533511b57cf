//! What must hold for every decision, one by one and over random histories.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bars;
mod deadlines;
mod due;
mod enrolment;
mod fixtures;
mod going_back;
mod lifecycle;
mod offers;
mod properties;
mod retirement;
mod rollout_admit;
mod rollout_fleets;
mod rollout_forecast;
mod rollout_histories;
mod rollout_judge;
mod rollout_plan;
mod rollout_simulation;
mod rollout_window;
mod rollout_window_properties;
mod rollout_world;
mod spread;
