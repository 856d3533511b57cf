//! OpenSSL, asked as a server would.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use certwave_crds::CertificateAuthority;

use crate::stack::{Stack, objects};
use crate::tools;

/// `openssl verify` against the stack's root.
pub(super) struct Verifier {
    /// The root, PEM.
    pub(super) root: String,
    program: PathBuf,
    file: PathBuf,
    directory: PathBuf,
}

impl Verifier {
    pub(super) async fn new(stack: &Stack) -> Result<Self> {
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
    pub(super) fn verify(&self, id: &str, chain: &str) -> Result<()> {
        let file = self.directory.join(format!("{id}.pem"));
        std::fs::write(&file, chain)?;
        let mut command = Command::new(&self.program);
        command.args([
            "verify",
            "-x509_strict",
            "-purpose",
            "sslclient",
            "-no-CApath",
            "-no-CAstore",
            "-CAfile",
        ]);
        command.arg(&self.file).arg("-untrusted").arg(&file).arg(&file);
        tools::output(&mut command).with_context(|| format!("OpenSSL refuses the certificate of {id}"))?;
        Ok(())
    }
}
