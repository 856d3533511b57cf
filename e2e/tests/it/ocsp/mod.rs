//! OCSP as relying parties get it, from a controller that runs on its own and from `certwave responder` beside it.

mod judges;
mod responder;
mod signer;
mod status;
mod world;
