//! certwave-agent
