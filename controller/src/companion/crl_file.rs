//! Mosquitto's `crlfile`: all CRLs as one PEM file, which is replaced as a whole, and remembers the numbers over restarts.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use certwave_core::door::Scope;
use certwave_pki::crl_to_pem;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;

use super::accept::{Held, scope_of};

/// The file cannot be read or written. Mosquitto goes on with the one that it has.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl FileError {
    /// A short word of a closed set.
    pub const fn category(&self) -> &'static str {
        "file"
    }

    fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// The CRLs in the file with the scopes that they claim; nothing is verified. What cannot be read is as if it were not there: it
/// is fetched again.
pub(super) fn read(path: &Path) -> Result<Vec<(Scope, Vec<u8>)>, FileError> {
    let pem = match fs::read(path) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(FileError::of(path)(error)),
    };
    let crls = CertificateRevocationListDer::pem_slice_iter(&pem).filter_map(Result::ok);
    Ok(crls
        .filter_map(|der| scope_of(&der).map(|scope| (scope, der.to_vec())))
        .collect())
}

/// Replaces the file: written beside, synced, renamed, and the rename synced. Whoever reads it, and whenever power fails, finds
/// the old one or the new one.
pub(super) fn write(path: &Path, crls: &BTreeMap<Scope, Held>) -> Result<(), FileError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let written = || -> io::Result<()> {
        let mut file = File::create(&beside)?;
        for held in crls.values() {
            file.write_all(crl_to_pem(&held.der).as_bytes())?;
        }
        // CRLs are public, and Mosquitto may be another user.
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.sync_all()
    };
    if let Err(error) = written() {
        // It may be what fills the disk.
        let _ = fs::remove_file(&beside);
        return Err(FileError::of(&beside)(error));
    }
    fs::rename(&beside, path).map_err(FileError::of(path))?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::of(directory))
}
