//! certwave-e2e
