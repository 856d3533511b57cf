-- Times are Unix milliseconds; validity of certificates and CRLs is Unix seconds. Fingerprints are 32 bytes, ids of jobs 16.
-- Names of states, kinds and outcomes are those of the program's types.

-- Every epoch ever taken. The present one is the greatest.
CREATE TABLE epochs (
    epoch     INTEGER PRIMARY KEY,
    holder    TEXT NOT NULL,
    taken_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE fleets (
    id         INTEGER PRIMARY KEY,
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    UNIQUE (namespace, name)
) STRICT;

-- Every certificate ever issued. Rows are never deleted, and after the insert only sent_at and confirmed_at change, once.
CREATE TABLE certificates (
    id            INTEGER PRIMARY KEY,
    fingerprint   BLOB NOT NULL UNIQUE,
    issuer        TEXT NOT NULL,
    serial        TEXT NOT NULL,
    spki          BLOB NOT NULL,
    public_key    BLOB NOT NULL,
    not_before    INTEGER NOT NULL,
    not_after     INTEGER NOT NULL,
    kind          TEXT NOT NULL,
    holder        TEXT NOT NULL,
    broker        TEXT,
    device        TEXT,
    job           BLOB,
    issued_at     INTEGER NOT NULL,
    sent_at       INTEGER,
    confirmed_at  INTEGER,
    der           BLOB NOT NULL,
    UNIQUE (issuer, serial),
    CHECK (kind <> 'Device' OR (broker IS NOT NULL AND device IS NOT NULL))
) STRICT;
CREATE INDEX certificates_key ON certificates (spki);
CREATE INDEX certificates_authority ON certificates (holder) WHERE kind = 'Authority';
CREATE UNIQUE INDEX certificates_device_key ON certificates (spki) WHERE kind = 'Device';

CREATE TABLE devices (
    id             INTEGER PRIMARY KEY,
    broker         TEXT NOT NULL,
    device         TEXT NOT NULL,
    -- The object that declares it, or did last.
    namespace      TEXT NOT NULL,
    name           TEXT NOT NULL,
    uid            TEXT NOT NULL,
    declared       INTEGER NOT NULL,
    fleet          INTEGER NOT NULL REFERENCES fleets (id),
    labels         TEXT NOT NULL,
    current        INTEGER REFERENCES certificates (id),
    previous       INTEGER REFERENCES certificates (id),
    pending        INTEGER REFERENCES certificates (id),
    bundle         BLOB,
    session        BLOB,
    last_seen      INTEGER,
    reenrol        TEXT,
    reenrol_used   TEXT,
    job            BLOB REFERENCES jobs (id),
    not_before     INTEGER,
    revision       INTEGER NOT NULL,
    -- The last revision that the object should show, when it was made, and the last one that the object shows.
    project_rev    INTEGER NOT NULL,
    changed_at     INTEGER NOT NULL,
    projected_rev  INTEGER NOT NULL,
    -- Copies for the indexes: of the current certificate,
    not_after      INTEGER,
    issuer         TEXT,
    -- and of the job; wake_at is the time at which somebody must look.
    job_open       INTEGER NOT NULL,
    job_state      TEXT,
    job_kind       TEXT,
    job_since      INTEGER,
    job_rotation   TEXT,
    wake_at        INTEGER,
    UNIQUE (broker, device)
) STRICT;
CREATE UNIQUE INDEX devices_object ON devices (namespace, name) WHERE declared = 1;
CREATE INDEX devices_wake ON devices (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX devices_open ON devices (fleet, job_state, job_since, job_kind) WHERE job_open = 1;
CREATE INDEX devices_rotation ON devices (job_rotation, job_state, job_open) WHERE job_open = 1;
CREATE INDEX devices_expiry ON devices (fleet, not_after, device) WHERE declared = 1 AND job_open = 0;
CREATE INDEX devices_issuer ON devices (fleet, issuer) WHERE declared = 1 AND job_open = 0;
CREATE INDEX devices_bundle ON devices (fleet, bundle) WHERE declared = 1 AND job_open = 0;
CREATE INDEX devices_unprojected ON devices (changed_at) WHERE project_rev > projected_rev;
CREATE INDEX devices_counts ON devices (fleet, declared, not_after, job_state, job_kind, last_seen);

-- One row per job, kept when the device has another.
CREATE TABLE jobs (
    id            BLOB PRIMARY KEY,
    device        INTEGER NOT NULL REFERENCES devices (id),
    kind          TEXT NOT NULL,
    bundle        BLOB,
    rotation      TEXT,
    claim         TEXT,
    state         TEXT NOT NULL,
    attempt       INTEGER NOT NULL,
    nonce         BLOB NOT NULL,
    epoch         INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    since         INTEGER NOT NULL,
    deadline      INTEGER,
    job_deadline  INTEGER,
    csr_key       BLOB,
    subject_kind  TEXT,
    subject       BLOB,
    committed     INTEGER NOT NULL,
    code          TEXT,
    detail        TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE claims (
    id           INTEGER PRIMARY KEY,
    broker       TEXT NOT NULL,
    name         TEXT NOT NULL,
    fleet        INTEGER NOT NULL REFERENCES fleets (id),
    device       TEXT,
    quota        INTEGER,
    not_after    INTEGER NOT NULL,
    suspended    INTEGER NOT NULL,
    certificate  INTEGER REFERENCES certificates (id),
    public_key   BLOB NOT NULL,
    spki         BLOB NOT NULL UNIQUE,
    -- Different devices that have used it.
    used         INTEGER NOT NULL,
    last_used    INTEGER,
    UNIQUE (broker, name)
) STRICT;
CREATE INDEX claims_fleet ON claims (fleet, name);

CREATE TABLE claim_uses (
    id      INTEGER PRIMARY KEY,
    claim   INTEGER NOT NULL REFERENCES claims (id),
    device  TEXT NOT NULL,
    job     BLOB NOT NULL,
    at      INTEGER NOT NULL
) STRICT;
CREATE INDEX claim_uses_device ON claim_uses (claim, device);

CREATE TABLE rotations (
    id         INTEGER PRIMARY KEY,
    uid        TEXT NOT NULL UNIQUE,
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    fleet      INTEGER NOT NULL REFERENCES fleets (id),
    reason     TEXT NOT NULL,
    issuer     TEXT,
    started    INTEGER NOT NULL,
    members    INTEGER NOT NULL,
    ended      INTEGER,
    outcome    TEXT
) STRICT;

CREATE TABLE members (
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    device    INTEGER NOT NULL REFERENCES devices (id),
    wave      INTEGER NOT NULL,
    ordinal   INTEGER NOT NULL,
    outcome   TEXT NOT NULL,
    -- Its last job in this Rotation.
    job       BLOB REFERENCES jobs (id),
    PRIMARY KEY (rotation, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_outcome ON members (rotation, outcome, wave, ordinal);
CREATE INDEX members_planned ON members (device) WHERE outcome = 'Planned';

-- The last CRL of each scope.
CREATE TABLE crls (
    issuer       TEXT NOT NULL,
    partition    TEXT NOT NULL,
    number       INTEGER NOT NULL,
    this_update  INTEGER NOT NULL,
    next_update  INTEGER NOT NULL,
    der          BLOB NOT NULL,
    PRIMARY KEY (issuer, partition)
) STRICT;
CREATE INDEX crls_next_update ON crls (next_update);

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    who     TEXT NOT NULL,
    what    TEXT NOT NULL,
    broker  TEXT,
    device  TEXT,
    job     BLOB,
    detail  TEXT
) STRICT;
CREATE INDEX audit_device ON audit (broker, device, id);
CREATE TRIGGER audit_is_final_update BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is final'); END;
CREATE TRIGGER audit_is_final_delete BEFORE DELETE ON audit BEGIN SELECT raise(ABORT, 'the audit is final'); END;
CREATE TRIGGER certificates_are_final BEFORE DELETE ON certificates BEGIN SELECT raise(ABORT, 'certificates are kept'); END;
