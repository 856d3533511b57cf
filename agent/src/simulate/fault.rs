//! What can go wrong with a simulated device.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use certwave_protocol::ids::DeviceId;

/// A fault. Unless it says otherwise it begins once the device is enrolled and concerns rotate jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `offline`: goes away for good as soon as it is enrolled.
    Offline,
    /// `never-answer`: stays connected and answers no job.
    NeverAnswer,
    /// `reject`: rejects every job.
    Reject,
    /// `fail-test[:alert]`: no connection with a new certificate succeeds; refused with this TLS alert (default
    /// `bad_certificate`), or `unreachable`.
    FailTest(Option<String>),
    /// `old-door`: connects with the old certificate wherever it thinks to use the new one, in its trial too; what it says is signed
    /// by the new key.
    OldDoor,
    /// `vanish:accepted`, `vanish:stored` or `vanish:tested`: goes away for good once it has said that it takes a job on, has
    /// stored the certificate that the job brought, or has said that it works.
    Vanish(Vanishing),
    /// `power-cut:n`: loses power after n instructions of its first job, and comes back.
    PowerCut(u32),
    /// `slow:30s`: takes so long over each message.
    Slow(Duration),
    /// `clock:-20y`: its clock is so many seconds off, from the beginning.
    Clock(i64),
    /// `duplicate`: says everything twice, from the beginning.
    Duplicate,
}

/// When a device goes away for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vanishing {
    /// Its `accepted` is its last word.
    Accepted,
    /// It has stored the new certificate and never tries it.
    Stored,
    /// Its `tested` is its last word.
    Tested,
}

/// Which devices have a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// `*`: all.
    All,
    /// `#n`: the first n that no other fault names or has taken.
    Count(usize),
    /// `id,id`: these.
    Ids(BTreeSet<DeviceId>),
}

/// `kind[:param]=selector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultArg {
    /// What.
    pub fault: Fault,
    /// Who.
    pub selector: Selector,
}

/// Not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    /// No `=`.
    #[error("a fault is kind[:param]=selector, as in fail-test=sim-0003 or power-cut:7=#2")]
    Form,
    /// No such fault.
    #[error(
        "unknown fault {0:?}; known are offline, never-answer, reject, fail-test[:alert|:unreachable], \
         old-door, vanish:accepted|stored|tested, power-cut:n, slow:<duration>, clock:<offset>, duplicate"
    )]
    Kind(String),
    /// A parameter that is missing or wrong.
    #[error("{0} needs a parameter like {1}")]
    Param(&'static str, &'static str),
    /// No such selector.
    #[error("a selector is *, #<count> or deviceIds with commas between them")]
    Selector,
}

impl FromStr for FaultArg {
    type Err = BadFault;
    fn from_str(s: &str) -> Result<Self, BadFault> {
        let (what, who) = s.split_once('=').ok_or(BadFault::Form)?;
        let (kind, param) = what.split_once(':').map_or((what, None), |(k, p)| (k, Some(p)));
        let fault = match kind {
            "offline" => Fault::Offline,
            "never-answer" => Fault::NeverAnswer,
            "reject" => Fault::Reject,
            "fail-test" => match param.unwrap_or("bad_certificate") {
                "unreachable" => Fault::FailTest(None),
                alert => Fault::FailTest(Some(alert.to_owned())),
            },
            "old-door" => Fault::OldDoor,
            "vanish" => Fault::Vanish(match param {
                Some("accepted") => Vanishing::Accepted,
                Some("stored") => Vanishing::Stored,
                Some("tested") => Vanishing::Tested,
                _ => return Err(BadFault::Param("vanish", "vanish:accepted")),
            }),
            "power-cut" => {
                let steps = param.and_then(|p| p.parse().ok());
                Fault::PowerCut(steps.ok_or(BadFault::Param("power-cut", "power-cut:7"))?)
            }
            "slow" => {
                let time = param.and_then(seconds).and_then(|s| u64::try_from(s).ok());
                Fault::Slow(Duration::from_secs(time.ok_or(BadFault::Param("slow", "slow:30s"))?))
            }
            "clock" => Fault::Clock(param.and_then(seconds).ok_or(BadFault::Param("clock", "clock:-20y"))?),
            "duplicate" => Fault::Duplicate,
            other => return Err(BadFault::Kind(other.to_owned())),
        };
        let selector = match who {
            "*" => Selector::All,
            _ => match who.strip_prefix('#') {
                Some(count) => Selector::Count(count.parse().map_err(|_| BadFault::Selector)?),
                None => Selector::Ids(
                    who.split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()
                        .map_err(|_| BadFault::Selector)?,
                ),
            },
        };
        Ok(Self { fault, selector })
    }
}

/// `90`, `30s`, `5m`, `2h`, `3d` or `-20y`, in seconds.
fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = match text.char_indices().last()? {
        (i, 's') => (&text[..i], 1),
        (i, 'm') => (&text[..i], 60),
        (i, 'h') => (&text[..i], 3600),
        (i, 'd') => (&text[..i], 86_400),
        (i, 'y') => (&text[..i], 365 * 86_400),
        _ => (text, 1),
    };
    number.parse::<i64>().ok()?.checked_mul(unit)
}

/// Who has which faults.
pub fn assign(args: &[FaultArg], devices: &[DeviceId]) -> BTreeMap<DeviceId, Vec<Fault>> {
    let mut out: BTreeMap<DeviceId, Vec<Fault>> = BTreeMap::new();
    let mut give = |id: &DeviceId, fault: &Fault| out.entry(id.clone()).or_default().push(fault.clone());
    let mut taken: BTreeSet<&DeviceId> = BTreeSet::new();
    for arg in args {
        match &arg.selector {
            Selector::All => devices.iter().for_each(|id| give(id, &arg.fault)),
            Selector::Ids(ids) => {
                for id in ids {
                    give(id, &arg.fault);
                    taken.insert(id);
                }
            }
            Selector::Count(_) => {}
        }
    }
    for arg in args {
        if let Selector::Count(count) = arg.selector {
            let free: Vec<_> = devices.iter().filter(|id| !taken.contains(id)).take(count).collect();
            for id in free {
                give(id, &arg.fault);
                taken.insert(id);
            }
        }
    }
    out
}
