//! How far a search goes.

/// What may go wrong, each at most so often; all together at most [`Scenario::faults`] times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// Power cuts, between any two instructions.
    pub power: u8,
    /// Connections that break, or are not made because the network is down.
    pub network: u8,
    /// Messages that arrive once more, or on a later connection.
    pub repeats: u8,
    /// Timers of the device that run out before what they wait for.
    pub timers: u8,
    /// Deadlines of the controller that pass.
    pub deadlines: u8,
    /// New leaders, with the one before them still there.
    pub takeovers: u8,
    /// What a person does: revoke, hold, release, cancel.
    pub person: u8,
    /// Trials that are made over the wrong certificate by mistake.
    pub mistakes: u8,
}

/// The bounds of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each stands by itself")]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// Jobs at most.
    pub jobs: u8,
    /// Faults at most, of whatever kind.
    pub faults: u8,
    /// Faults at most, of each kind.
    pub each: Faults,
    /// A confirmed device may be sent back.
    pub rollback: bool,
    /// The fleet has a new bundle, so that the first job is a trust job.
    pub trust: bool,
    /// Old certificates are retired (`retire: Revoke`).
    pub retire: bool,
    /// The door lets none of the new certificates in, and nobody knows.
    pub unfit: bool,
}

const NOTHING: Faults = Faults {
    power: 0,
    network: 0,
    repeats: 0,
    timers: 0,
    deadlines: 0,
    takeovers: 0,
    person: 0,
    mistakes: 0,
};

/// Every kind of fault, each as often as the sum allows.
const ALL: Faults = Faults {
    power: 9,
    network: 9,
    repeats: 9,
    timers: 9,
    deadlines: 9,
    takeovers: 2,
    person: 2,
    mistakes: 0,
};

const BASE: Scenario = Scenario {
    name: "no faults",
    jobs: 1,
    faults: 0,
    each: NOTHING,
    rollback: false,
    trust: false,
    retire: false,
    unfit: false,
};

/// One rotation in which nothing goes wrong.
pub const QUIET: Scenario = BASE;
/// One rotation and any faults.
pub const ROTATE: Scenario = Scenario {
    name: "rotate",
    faults: 2,
    each: ALL,
    ..BASE
};
/// Rotations one after the other.
pub const AGAIN: Scenario = Scenario {
    name: "rotate again",
    jobs: 2,
    faults: 1,
    each: ALL,
    ..BASE
};
/// A rotation, and back.
pub const BACK: Scenario = Scenario {
    name: "rotate and send back",
    jobs: 2,
    faults: 1,
    each: ALL,
    rollback: true,
    ..BASE
};
/// Anchors first.
pub const TRUST: Scenario = Scenario {
    name: "trust, then rotate",
    jobs: 2,
    faults: 1,
    each: ALL,
    trust: true,
    ..BASE
};
/// The old certificate is revoked in two phases.
pub const RETIRE: Scenario = Scenario {
    name: "rotate and retire",
    faults: 2,
    each: ALL,
    retire: true,
    ..BASE
};
/// The same for two rotations.
pub const RETIRE_AGAIN: Scenario = Scenario {
    name: "rotate and retire twice",
    jobs: 2,
    faults: 1,
    ..RETIRE
};
/// Back while the old certificate is being retired, with a deadline that passes.
pub const RETIRE_BACK: Scenario = Scenario {
    name: "retire, or send back",
    each: Faults {
        deadlines: 1,
        ..NOTHING
    },
    rollback: true,
    ..RETIRE_AGAIN
};
/// A certificate that opens nothing, tried over the old one by mistake.
pub const MISTAKE: Scenario = Scenario {
    name: "retire after a mistaken trial",
    faults: 2,
    each: Faults { mistakes: 1, ..ALL },
    retire: true,
    unfit: true,
    ..BASE
};

/// The next rotation meets a device that a person had put on hold.
pub const RELEASED: Scenario = Scenario {
    name: "hold, release, rotate",
    faults: 2,
    each: Faults { person: 2, ..NOTHING },
    ..AGAIN
};

/// Those that every run of the tests searches.
pub const SMALL: [Scenario; 8] = [QUIET, ROTATE, AGAIN, BACK, TRUST, RETIRE, MISTAKE, RELEASED];

const fn more(scenario: Scenario, name: &'static str) -> Scenario {
    Scenario {
        name,
        faults: scenario.faults + 1,
        ..scenario
    }
}

/// Those that take minutes: with one more fault, and two jobs with retirements between them.
pub const LARGE: [Scenario; 9] = [
    more(TRUST, "trust, then rotate, 2 faults"),
    more(ROTATE, "rotate, 3 faults"),
    RETIRE_BACK,
    more(AGAIN, "rotate again, 2 faults"),
    more(MISTAKE, "mistaken trial, 3 faults"),
    // With a connection that breaks, so that the device may go back by itself.
    Scenario {
        name: "hold, release, rotate, and a break",
        faults: 3,
        each: Faults {
            person: 2,
            network: 1,
            ..NOTHING
        },
        ..RETIRE_AGAIN
    },
    more(BACK, "rotate and send back, 2 faults"),
    RETIRE_AGAIN,
    more(RETIRE, "rotate and retire, 3 faults"),
];
