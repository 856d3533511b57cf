//! What must hold for every decision, one by one and over random histories.
#![allow(clippy::unwrap_used, clippy::panic)]

mod deadlines;
mod due;
mod enrolment;
mod fixtures;
mod going_back;
mod lifecycle;
mod offers;
mod properties;
