//! Relying parties that are no brokers.

mod tls;
