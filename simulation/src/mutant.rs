//! Mistakes made on purpose, around the product: each must be found by some seed, or the judges could not fail.

use clap::ValueEnum;

use crate::broker::Mistake;
use crate::replica::LEDGER;
use crate::world::{World, mutable};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutant {
    /// The broker lets in whoever is revoked.
    BrokerLetsRevokedIn,
    /// The companion says that it has loaded CRLs that it has not.
    CompanionClaimsToHaveLoaded,
    /// The companion says that it has closed sessions that go on.
    CompanionClaimsToHaveClosed,
    /// Devices' disks lose at a power cut what they said they had written.
    DisksLie,
    /// The API server answers writes to statuses and makes none.
    StatusesAreForgotten,
    /// Watches leave some changes out, and never say so.
    WatchesHideChanges,
    /// The ledger drops, silently, which certificate a device has proven.
    ProofIsDropped,
    /// The ledger drops CRLs silently.
    CrlsAreDropped,
    /// The ledger takes each change for shown already.
    NothingIsShown,
    /// More devices may be in flight in a Rotation than was asked for.
    LimitIsIgnored,
    /// Of a site, too.
    SiteIsIgnored,
    /// More devices may begin within a minute than was asked for.
    RateIsIgnored,
    /// A Rotation is of all devices where it was asked for some.
    SelectorIsIgnored,
    /// A Rotation has one wave where several were asked for.
    WavesAreIgnored,
    /// Its waves do not soak.
    SoakIsIgnored,
    /// Nobody needs to approve its waves.
    ApprovalIsIgnored,
    /// What was approved before a breach counts after it.
    ApprovalOutlivesBreach,
    /// Its waves forgive all failures.
    BudgetIsIgnored,
    /// Each replica is told that it holds all Leases.
    LeasesAreShared,
}

impl Mutant {
    /// All of them.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name on the command line.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }

    /// Makes the mistake from now on.
    ///
    /// # Errors
    /// When the ledger has other tables than this expects.
    pub fn make(self, world: &World) -> anyhow::Result<()> {
        let ground = &world.ground;
        match self {
            Self::BrokerLetsRevokedIn => ground.broker.mistake(Mistake::LetsRevokedIn),
            Self::CompanionClaimsToHaveLoaded => ground.broker.mistake(Mistake::ClaimsToHaveLoaded),
            Self::CompanionClaimsToHaveClosed => ground.broker.mistake(Mistake::ClaimsToHaveClosed),
            Self::DisksLie => world.units.iter().for_each(crate::device::Unit::lie),
            Self::StatusesAreForgotten => ground.api.misbehave(|faults| faults.forgets_statuses = true),
            Self::WatchesHideChanges => ground.api.misbehave(|faults| faults.hides_changes = 250),
            Self::LeasesAreShared => ground.api.misbehave(|faults| faults.shares_leases = true),
            // Taken into account where the Rotation is created.
            Self::LimitIsIgnored
            | Self::SiteIsIgnored
            | Self::RateIsIgnored
            | Self::SelectorIsIgnored
            | Self::WavesAreIgnored
            | Self::SoakIsIgnored
            | Self::ApprovalIsIgnored
            | Self::BudgetIsIgnored => {}
            Self::ProofIsDropped => rule(
                "AFTER UPDATE OF current ON devices WHEN NEW.id % 3 = 0
                 BEGIN UPDATE devices SET current = OLD.current WHERE id = NEW.id; END",
            )?,
            Self::ApprovalOutlivesBreach => rule(
                "AFTER UPDATE OF run ON rotations WHEN OLD.run ->> 'approved' > NEW.run ->> 'approved'
                 BEGIN UPDATE rotations SET run = json_set(NEW.run, '$.approved', OLD.run ->> 'approved', '$.spent', NULL)
                     WHERE id = NEW.id; END",
            )?,
            Self::CrlsAreDropped => {
                rule("BEFORE UPDATE ON crls BEGIN SELECT RAISE(IGNORE); END")?;
            }
            Self::NothingIsShown => rule(
                "AFTER UPDATE OF project_rev ON devices
                 BEGIN UPDATE devices SET projected_rev = project_rev WHERE id = NEW.id; END",
            )?,
        }
        Ok(())
    }
}

/// Has the ledger's tables go by another rule.
fn rule(rule: &str) -> anyhow::Result<()> {
    // The operator's connections notice by themselves that the schema has changed.
    mutable(LEDGER)?.execute_batch(&format!("CREATE TRIGGER mutant {rule}"))?;
    Ok(())
}
