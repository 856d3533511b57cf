//! For the technician beside the device: what it is at, and what is wrong.

pub mod doctor;
pub mod live;
pub mod status;
