//! certwave-pki
