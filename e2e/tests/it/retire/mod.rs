//! Retiring old certificates by revocation on the real stack: a broker that checks CRLs, its companion, devices that take the
//! right door and devices that take the wrong one. Whatever happens, every device is connected in the end.

mod beside;
mod faults;
mod mistaken;
mod pace;
mod superseded;
mod world;
