//! `certwave ledger`: copies of the ledger, and whether it is whole.

mod verify;

use std::path::{Path, PathBuf};

use certwave_ledger::{Copied, backup, restore};
use clap::Subcommand;

use super::CommandError;
use crate::clock::now;
use crate::ledger::LedgerArguments;

/// Back up, restore and verify the ledger.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Copy the ledger, as it stands at one instant, into a file of its own; the controller may go on meanwhile. The file is the
    /// same whichever database the ledger is in.
    Backup {
        #[command(flatten)]
        ledger: LedgerArguments,
        /// The file to be made.
        #[arg(long)]
        to: PathBuf,
    },
    /// Put a backup in the ledger's place, with the controller stopped: a file, or a `PostgreSQL` database that holds no ledger
    /// yet. Nothing is issued until the controller has taken in what was issued and revoked since, from statuses and
    /// published CRLs.
    Restore {
        #[command(flatten)]
        ledger: LedgerArguments,
        /// The backup. None where `PostgreSQL`'s own tools have brought the database back: then this notes that it was restored.
        #[arg(long)]
        from: Option<PathBuf>,
        /// Also over a file that holds more, is another ledger or cannot be read, which is kept beside it. Without --from: always asked
        /// for, as a database in use would be marked, too.
        #[arg(long)]
        force: bool,
    },
    /// Check the file, the chain of the audit and every CRL; the controller may go on meanwhile.
    Verify {
        #[command(flatten)]
        ledger: LedgerArguments,
    },
}

/// Runs the command.
///
/// # Errors
/// When something could not be done, or something is wrong with the ledger.
pub async fn run(arguments: Arguments) -> Result<(), CommandError> {
    match arguments.action {
        Action::Backup { ledger, to } => {
            let copied = backup(ledger.place()?, &to).await?;
            println!("{} holds {}", to.display(), told(&copied));
        }
        Action::Restore { ledger, from, force } => {
            put_back(&ledger, from.as_deref(), force).await?;
            println!("start the controller: it takes in what was issued and revoked since before it issues anything");
        }
        Action::Verify { ledger } => {
            let opened = ledger.open_for_reading()?;
            if ledger.file().is_some() {
                println!("the file is whole");
            }
            verify::verify(opened.as_ref(), |line| println!("{line}")).await?;
        }
    }
    Ok(())
}

async fn put_back(ledger: &LedgerArguments, from: Option<&Path>, force: bool) -> Result<(), CommandError> {
    let Some(from) = from else {
        if ledger.file().is_some() {
            return Err(CommandError::Refused("--from names the backup".to_owned()));
        }
        if !force {
            let why = "without --from the database itself is marked as restored: whoever leads on it is thrown out, and nothing is \
                       issued until what came since is taken in. Repeat this with --force if it is the one that was brought back";
            return Err(CommandError::Refused(why.to_owned()));
        }
        let opened = ledger.open()?;
        opened.verify_audit().await?;
        return Ok(opened.mark_restored(opened.epoch().await?, now()).await?);
    };
    let copied = restore(from, ledger.place()?, now(), force).await?;
    println!("the ledger {} holds {}", ledger.name(), told(&copied));
    if let Some(aside) = &copied.aside {
        println!("what was there before is kept as {}", aside.display());
    }
    Ok(())
}

fn told(copied: &Copied) -> String {
    let totals = copied.totals;
    format!(
        "ledger {}: epoch {}, {} devices, {} certificates, {} revoked, {} on hold, {} lines of audit",
        copied.provenance.id,
        totals.epoch,
        totals.devices,
        totals.certificates + totals.archived,
        totals.revoked,
        totals.held,
        totals.audit
    )
}
