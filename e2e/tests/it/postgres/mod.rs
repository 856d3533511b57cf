//! The ledger in `PostgreSQL`, under the real stack.

mod commands;
mod deposed;
mod outage;
mod replicas;
mod responder;
mod shards;
mod world;
