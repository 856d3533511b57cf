//! certwave-protocol
