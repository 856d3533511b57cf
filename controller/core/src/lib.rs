//! certwave-core
