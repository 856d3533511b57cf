//! Mosquitto's door: a real Mosquitto, `certwave crl-sync` beside it, and CRLs that the test publishes.

mod companion;
mod full;
mod hostile;
mod mass;
mod refuse;
mod resume;
mod whole;
mod world;
