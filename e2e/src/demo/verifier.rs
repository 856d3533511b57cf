//! OpenSSL, asked as a server would.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use certwave_crds::CertificateAuthority;

use crate::stack::{Stack, objects};
use crate::tools;

/// `openssl verify` against the stack's root.
pub(crate) struct Verifier {
    /// The root, PEM.
    pub(crate) root: String,
    program: PathBuf,
    file: PathBuf,
    directory: PathBuf,
}

impl Verifier {
    pub(crate) async fn new(stack: &Stack) -> Result<Self> {
        let ca: CertificateAuthority = stack.objects().get(objects::CA).await?;
        let root = ca
            .status
            .and_then(|status| status.certificate)
            .context("the CA shows no certificate")?;
        let directory = stack.directory().to_owned();
        let file = directory.join("root.pem");
        std::fs::write(&file, &root)?;
        Ok(Self {
            root,
            program: tools::openssl()?,
            file,
            directory,
        })
    }

    /// Chain, validity, purpose.
    pub(crate) fn verify(&self, id: &str, chain: &str) -> Result<()> {
        self.check(id, chain, &[])
    }

    /// The same, and that the leaf is not on this CRL, which has to be good itself.
    pub(crate) fn verify_unrevoked(&self, id: &str, chain: &str, crl: &Path) -> Result<()> {
        self.check(id, chain, &["-crl_check".as_ref(), "-CRLfile".as_ref(), crl.as_ref()])
    }

    fn check(&self, id: &str, chain: &str, more: &[&OsStr]) -> Result<()> {
        let file = self.directory.join(format!("{id}.pem"));
        std::fs::write(&file, chain)?;
        let mut command = Command::new(&self.program);
        command.args(["verify", "-x509_strict", "-purpose", "sslclient"]);
        command.args(["-no-CApath", "-no-CAstore"]).args(more);
        command.arg("-CAfile").arg(&self.file);
        command.arg("-untrusted").arg(&file).arg(&file);
        tools::output(&mut command).with_context(|| format!("OpenSSL refuses the certificate of {id}"))?;
        Ok(())
    }
}
