//! certwave-crds
