-- Revocation: holds, revocations and how far the world has heard of them; retirements; what brokers have loaded; recovery;
-- the archive; the audit's chain of hashes. Since when a certificate is on hold, revoked or released is Unix seconds, and a
-- reason is the value of CRLReason.

-- The one row about the ledger itself. last_change numbers the changes of standing.
CREATE TABLE ledger (
    only         INTEGER PRIMARY KEY CHECK (only = 1),
    id           TEXT NOT NULL,
    restored_at  INTEGER,
    last_change  INTEGER NOT NULL
) STRICT;
INSERT INTO ledger VALUES (1, lower(hex(randomblob(16))), NULL, 0);

-- Certificates that are or were on hold or revoked, and those of which a restored ledger knows the serial number only. In the
-- order in which CRLs list them.
CREATE TABLE marks (
    issuer         TEXT NOT NULL,
    partition      TEXT NOT NULL,
    serial         TEXT NOT NULL,
    fingerprint    BLOB,
    -- Whose, if a device's.
    broker         TEXT,
    device         TEXT,
    not_after      INTEGER NOT NULL,
    held_at        INTEGER,
    released_at    INTEGER,
    revoked_at     INTEGER,
    reason         INTEGER,
    invalid_since  INTEGER,
    change         INTEGER NOT NULL UNIQUE,
    requested_at   INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL,
    -- The first CRL that says so.
    crl_number     INTEGER,
    crl_at         INTEGER,
    shut_at        INTEGER,
    -- A live session may have to be closed, and when it was.
    session        INTEGER NOT NULL,
    closed_at      INTEGER,
    PRIMARY KEY (issuer, partition, serial),
    CHECK ((revoked_at IS NULL) = (reason IS NULL)),
    CHECK (held_at IS NULL OR revoked_at IS NULL)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX marks_serial ON marks (issuer, serial);
CREATE INDEX marks_device ON marks (broker, device) WHERE broker IS NOT NULL;
CREATE INDEX marks_unlisted ON marks (issuer, partition, change) WHERE crl_number IS NULL;
CREATE INDEX marks_open_doors ON marks (broker, issuer, partition, change) WHERE shut_at IS NULL AND broker IS NOT NULL;
CREATE INDEX marks_open_sessions ON marks (broker, device) WHERE session = 1 AND closed_at IS NULL;
CREATE TRIGGER marks_are_kept BEFORE DELETE ON marks
    WHEN NOT EXISTS (SELECT 1 FROM archived_certificates a WHERE a.issuer = old.issuer AND a.serial = old.serial)
    BEGIN SELECT raise(ABORT, 'marks are kept'); END;
CREATE TRIGGER revoked_is_final BEFORE UPDATE OF revoked_at, reason ON marks
    WHEN old.revoked_at IS NOT NULL AND (new.revoked_at IS NOT old.revoked_at OR new.reason IS NOT old.reason)
    BEGIN SELECT raise(ABORT, 'a revocation is final'); END;

-- Who keeps certificates on hold: 'person', 'revocation <uid>' or 'retirement <job>'.
CREATE TABLE holds (
    issuer  TEXT NOT NULL,
    serial  TEXT NOT NULL,
    holder  TEXT NOT NULL,
    PRIMARY KEY (issuer, serial, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX holds_holder ON holds (holder);

-- Who keeps devices from getting certificates by a hold.
CREATE TABLE device_holds (
    device  INTEGER NOT NULL REFERENCES devices (id),
    holder  TEXT NOT NULL,
    PRIMARY KEY (device, holder)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_holds_holder ON device_holds (holder);

-- What was done in the name of Revocation objects (uid).
CREATE TABLE named_marks (
    revocation  TEXT NOT NULL,
    issuer      TEXT NOT NULL,
    serial      TEXT NOT NULL,
    PRIMARY KEY (revocation, issuer, serial)
) STRICT, WITHOUT ROWID;

-- The last change of each scope of CRLs.
CREATE TABLE scopes (
    issuer       TEXT NOT NULL,
    partition    TEXT NOT NULL,
    last_change  INTEGER NOT NULL,
    PRIMARY KEY (issuer, partition)
) STRICT, WITHOUT ROWID;

ALTER TABLE crls ADD COLUMN covers INTEGER NOT NULL DEFAULT 0;
-- How far the last CRLs of each scope reach.
CREATE TABLE crl_covers (
    issuer        TEXT NOT NULL,
    partition     TEXT NOT NULL,
    number        INTEGER NOT NULL,
    covers        INTEGER NOT NULL,
    this_update   INTEGER NOT NULL,
    published_at  INTEGER NOT NULL,
    PRIMARY KEY (issuer, partition, number)
) STRICT, WITHOUT ROWID;
-- Numbers of CRLs that were published and are not in this ledger: none below them again.
CREATE TABLE crl_floors (
    issuer     TEXT NOT NULL,
    partition  TEXT NOT NULL,
    number     INTEGER NOT NULL,
    PRIMARY KEY (issuer, partition)
) STRICT, WITHOUT ROWID;

-- The last CRLs that each node of a broker has loaded.
CREATE TABLE door_loads (
    broker     TEXT NOT NULL,
    node       TEXT NOT NULL,
    issuer     TEXT NOT NULL,
    partition  TEXT NOT NULL,
    number     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (broker, node, issuer, partition, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE retirements (
    job       BLOB PRIMARY KEY,
    broker    TEXT NOT NULL,
    device    TEXT NOT NULL,
    rotation  TEXT,
    old       BLOB NOT NULL,
    new       BLOB NOT NULL,
    phase     TEXT NOT NULL,
    since     INTEGER NOT NULL,
    wake      INTEGER,
    nonce     BLOB,
    attempt   INTEGER NOT NULL,
    why       TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX retirements_device ON retirements (broker, device) WHERE phase NOT IN ('Revoked', 'Released');
CREATE INDEX retirements_waiting ON retirements (broker, wake) WHERE phase = 'Waiting';
CREATE INDEX retirements_holding ON retirements (broker, wake) WHERE phase IN ('Held', 'Asked');
CREATE INDEX retirements_rotation ON retirements (rotation, phase) WHERE rotation IS NOT NULL;

-- Why the device gets no certificate, and what spec.revocation said last.
ALTER TABLE devices ADD COLUMN bar TEXT;
ALTER TABLE devices ADD COLUMN revocation TEXT;

CREATE INDEX certificates_device ON certificates (broker, device, not_after) WHERE kind = 'Device';
CREATE INDEX claims_certificate ON claims (certificate) WHERE certificate IS NOT NULL;
CREATE INDEX certificates_end ON certificates (not_after) WHERE kind <> 'Authority';

-- Certificates that ended long ago, with what had become of them.
CREATE TABLE archived_certificates (
    fingerprint    BLOB PRIMARY KEY,
    issuer         TEXT NOT NULL,
    serial         TEXT NOT NULL,
    spki           BLOB NOT NULL,
    public_key     BLOB NOT NULL,
    not_before     INTEGER NOT NULL,
    not_after      INTEGER NOT NULL,
    kind           TEXT NOT NULL,
    holder         TEXT NOT NULL,
    broker         TEXT,
    device         TEXT,
    job            BLOB,
    issued_at      INTEGER NOT NULL,
    sent_at        INTEGER,
    confirmed_at   INTEGER,
    der            BLOB NOT NULL,
    held_at        INTEGER,
    revoked_at     INTEGER,
    reason         INTEGER,
    invalid_since  INTEGER,
    UNIQUE (issuer, serial)
) STRICT;
CREATE INDEX archived_certificates_key ON archived_certificates (spki);
CREATE TRIGGER archive_is_final_update BEFORE UPDATE ON archived_certificates
    BEGIN SELECT raise(ABORT, 'the archive is final'); END;
CREATE TRIGGER archive_is_final_delete BEFORE DELETE ON archived_certificates
    BEGIN SELECT raise(ABORT, 'the archive is final'); END;
DROP TRIGGER certificates_are_final;
CREATE TRIGGER certificates_are_final BEFORE DELETE ON certificates
    WHEN NOT EXISTS (SELECT 1 FROM archived_certificates a WHERE a.fingerprint = old.fingerprint)
    BEGIN SELECT raise(ABORT, 'certificates are kept'); END;

-- Each line's hash is over the hash of the line before and its own fields; the program gives one to the lines there are.
ALTER TABLE audit ADD COLUMN hash BLOB;
DROP TRIGGER audit_is_final_update;
CREATE TRIGGER audit_is_final_update BEFORE UPDATE ON audit WHEN old.hash IS NOT NULL
    BEGIN SELECT raise(ABORT, 'the audit is final'); END;
