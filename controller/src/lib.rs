//! certwave-controller
