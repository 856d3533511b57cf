//! certwave-ledger
