//! The harness of Certwave's end-to-end tests, its demo and its benchmarks.
//!
//! It brings up what the product meets in the field: a Kubernetes API ([`api`]), an MQTT broker with mutual TLS
//! ([`mosquitto`]), the project's own programs ([`process`]). Everything listens on loopback, on free ports, in a
//! directory of its own, and ends with the process that started it, even when that is killed.

pub mod api;
pub mod bench;
pub mod chart;
pub mod conditions;
pub mod dashboard;
pub mod demo;
pub mod device_files;
pub mod fuzz;
pub mod http;
pub mod identity;
pub mod janitor;
pub mod judges;
pub mod kind;
pub mod lasting;
pub mod mosquitto;
pub mod mqtt;
pub mod nats;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod revoked;
pub mod scratch;
pub mod screen;
pub mod small_disk;
pub mod stack;
pub mod tally;
pub mod tools;
pub mod torture;
pub mod wait;
pub mod witness;

pub use wait::wait_for;
