//! From the strategy that a Fleet and a Rotation declare to the one that the core works by. Pure.

use certwave_core::rollout::strategy::{
    Gate, GateSource, Joiners, Limits, OnBreach, Order, PerGroup, Ramp, Retiring, Size, Strategy, Thresholds, Wave,
    Window,
};
use certwave_core::rollout::window::{Calendar, WindowError};
use certwave_crds::{self as crd, Fleet, Rotation, RotationMode, RotationReason};
use kube::ResourceExt as _;

use super::fleet::job_policy;

/// Why a declared strategy cannot be worked by; each message names the field and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategyError {
    /// A window that the schema lets through: an unknown zone, a pattern that never fires, a duration over its period.
    #[error("{at}.windows: {problem}")]
    Window {
        /// The object and the path of the part.
        at: String,
        /// What is wrong.
        #[source]
        problem: WindowError,
    },
    /// A wave that was kept before the API server asked for one of both.
    #[error("{at}.waves: wave {name} needs count or percent")]
    NoSize {
        /// The object and the path of the part.
        at: String,
        /// The wave.
        name: String,
    },
    /// The same for a gate.
    #[error("{at}.gates: gate {number} needs one of prometheus, webhook or online")]
    NoSource {
        /// The object and the path of the part.
        at: String,
        /// From 1.
        number: usize,
    },
}

/// The strategy of `rotation`, or of one that `fleet` begins by itself. A part that the Rotation has replaces the Fleet's
/// part as a whole.
///
/// # Errors
/// When a part cannot be worked by, though the API server accepted it.
pub fn strategy(fleet: &Fleet, rotation: Option<&Rotation>) -> Result<Strategy, StrategyError> {
    let declared = &fleet.spec.rotation;
    let own = rotation.map(|rotation| &rotation.spec);
    // Where a part was found, for the message.
    let at = |is_own: bool| match rotation.filter(|_| is_own) {
        Some(rotation) => format!("Rotation {}: spec", rotation.name_any()),
        None => format!("Fleet {}: spec.rotation", fleet.name_any()),
    };
    /// The Rotation's part, or the Fleet's.
    macro_rules! part {
        ($field:ident) => {
            own.and_then(|own| own.$field.as_ref())
                .unwrap_or(&declared.$field)
        };
    }

    let mut defaults = thresholds(part!(defaults));
    // Going back would restore what is compromised. The API server says so of a Rotation's own parts; here it is the Fleet's.
    let forward_only = own.is_some_and(|own| own.reason == RotationReason::CaCompromise);
    if forward_only && defaults.on_breach == OnBreach::Rollback {
        defaults.on_breach = OnBreach::Pause;
    }
    let waves = part!(waves).iter().map(|declared| {
        let mut wave = wave(declared, &defaults).ok_or_else(|| StrategyError::NoSize {
            at: at(own.is_some_and(|own| own.waves.is_some())),
            name: declared.name.clone(),
        })?;
        if forward_only && wave.thresholds.on_breach == OnBreach::Rollback {
            wave.thresholds.on_breach = OnBreach::Pause;
        }
        Ok(wave)
    });
    let gates = (1..).zip(part!(gates)).map(|(number, declared)| {
        gate(declared).ok_or_else(|| StrategyError::NoSource {
            at: at(own.is_some_and(|own| own.gates.is_some())),
            number,
        })
    });
    let windows: Vec<_> = part!(windows).iter().map(window).collect();
    Calendar::compile(&windows).map_err(|problem| StrategyError::Window {
        at: at(own.is_some_and(|own| own.windows.is_some())),
        problem,
    })?;
    let old_certificate = part!(old_certificate);
    Ok(Strategy {
        order: Order {
            spread_by: part!(order).spread_by.clone(),
        },
        waves: waves.collect::<Result<_, _>>()?,
        limits: limits(part!(limits)),
        job: job_policy(part!(device)),
        windows,
        override_before_expiry: Some(part!(window_override_before_expiry).as_millis()).filter(|before| *before > 0),
        joiners: match part!(joiners) {
            crd::Joiners::LastWave => Joiners::LastWave,
            crd::Joiners::Ignore => Joiners::Ignore,
        },
        grace: old_certificate.grace.as_millis(),
        rollback_min_remaining: old_certificate.rollback_min_remaining.as_millis(),
        retiring: retiring(old_certificate),
        gates: gates.collect::<Result<_, _>>()?,
        // A preview shows the emergency that it is for.
        emergency: own.is_some_and(|own| match own.mode {
            RotationMode::Emergency => true,
            RotationMode::Preview => own.reason == RotationReason::CaCompromise,
            RotationMode::Run => false,
        }),
    })
}

/// A number that the schema keeps from being negative.
fn number(declared: i32) -> u32 {
    declared.max(0).unsigned_abs()
}

/// A percentage that the schema keeps within 100.
fn percent(declared: i32) -> u8 {
    u8::try_from(declared.clamp(0, 100)).unwrap_or(100)
}

fn on_breach(declared: crd::OnBreach) -> OnBreach {
    match declared {
        crd::OnBreach::Pause => OnBreach::Pause,
        crd::OnBreach::Abort => OnBreach::Abort,
        crd::OnBreach::Rollback => OnBreach::Rollback,
    }
}

fn retiring(declared: &crd::OldCertificate) -> Option<Retiring> {
    match declared.retire {
        crd::Retire::Expire => None,
        crd::Retire::Revoke => Some(Retiring {
            probation: declared.probation.as_millis(),
            per_second: number(declared.reconnects_per_second).max(1),
        }),
    }
}

fn thresholds(declared: &crd::WaveDefaults) -> Thresholds {
    Thresholds {
        success_percent: percent(declared.success_percent),
        max_failed: None,
        max_failed_percent: percent(declared.max_failed_percent),
        min_sample: number(declared.min_sample),
        max_lost: number(declared.max_lost),
        on_breach: on_breach(declared.on_breach),
    }
}

/// `None` where it has neither count nor percent.
fn wave(declared: &crd::Wave, defaults: &Thresholds) -> Option<Wave> {
    let size = match (declared.count, declared.percent) {
        (Some(count), _) => Size::Count(number(count)),
        (None, Some(share)) => Size::Percent(percent(share)),
        (None, None) => return None,
    };
    Some(Wave {
        name: declared.name.clone(),
        size,
        selector: declared.selector.clone().unwrap_or_default().match_labels,
        thresholds: Thresholds {
            success_percent: declared.success_percent.map_or(defaults.success_percent, percent),
            max_failed: declared.max_failed.map(number),
            max_failed_percent: declared.max_failed_percent.map_or(defaults.max_failed_percent, percent),
            min_sample: declared.min_sample.map_or(defaults.min_sample, number),
            max_lost: declared.max_lost.map_or(defaults.max_lost, number),
            on_breach: declared.on_breach.map_or(defaults.on_breach, on_breach),
        },
        soak: declared.soak.as_millis(),
        approval: declared.approval,
    })
}

fn limits(declared: &crd::Limits) -> Limits {
    Limits {
        max_in_flight: number(declared.max_in_flight),
        max_per_minute: Some(number(declared.max_per_minute)),
        ramp: declared.ramp.map(|ramp| Ramp {
            from: number(ramp.from),
            factor: number(ramp.factor),
            every_succeeded: number(ramp.every_succeeded),
        }),
        per_group: declared.per_group.as_ref().map(|group| PerGroup {
            by: group.by.clone(),
            max_unavailable: number(group.max_unavailable),
        }),
    }
}

fn window(declared: &crd::Window) -> Window {
    Window {
        cron: declared.cron.clone(),
        duration: declared.duration.as_millis(),
        time_zone: declared.time_zone.clone(),
        selector: declared.selector.match_labels.clone(),
    }
}

/// `None` where it asks nobody.
fn gate(declared: &crd::Gate) -> Option<Gate> {
    let source = if let Some(prometheus) = &declared.prometheus {
        GateSource::Prometheus {
            url: prometheus.url.clone(),
            query: prometheus.query.clone(),
            above: declared.above.as_ref().map(ToString::to_string),
            below: declared.below.as_ref().map(ToString::to_string),
        }
    } else if let Some(webhook) = &declared.webhook {
        GateSource::Webhook {
            url: webhook.url.clone(),
            timeout: webhook.timeout.as_millis(),
        }
    } else {
        GateSource::Online {
            min_percent_of_before: percent(declared.online?.min_percent_of_before),
        }
    };
    Some(Gate {
        source,
        every: declared.every.as_millis(),
        failure_limit: number(declared.failure_limit),
        error_limit: number(declared.error_limit),
    })
}

#[cfg(test)]
mod tests;
