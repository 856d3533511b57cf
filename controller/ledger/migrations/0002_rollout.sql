-- Staged rotation: what a Rotation goes by and how far it is, members with groups and windows, their tallies, blocked
-- templates. strategy, plan and run are JSON; a Rotation of before has neither of the first two.
ALTER TABLE rotations ADD COLUMN strategy TEXT;
ALTER TABLE rotations ADD COLUMN plan TEXT;
ALTER TABLE rotations ADD COLUMN run TEXT NOT NULL DEFAULT '{}';

-- Members of a wave that share group and windows, so that whole buckets are passed over when a group is full or a window
-- closed. Bit i of windows: window i of the strategy is for them; without windows, all bits are set.
CREATE TABLE buckets (
    id        INTEGER PRIMARY KEY,
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    wave      INTEGER NOT NULL,
    grp       TEXT NOT NULL,
    windows   INTEGER NOT NULL,
    -- How many of them are planned.
    planned   INTEGER NOT NULL,
    UNIQUE (rotation, wave, grp, windows)
) STRICT;

-- Members by wave and outcome.
CREATE TABLE tallies (
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    wave      INTEGER NOT NULL,
    outcome   TEXT NOT NULL,
    n         INTEGER NOT NULL,
    -- When one of them last came or went.
    changed   INTEGER NOT NULL,
    PRIMARY KEY (rotation, wave, outcome)
) STRICT, WITHOUT ROWID;

DROP INDEX members_outcome;
DROP INDEX members_planned;
ALTER TABLE members RENAME TO members_before;
CREATE TABLE members (
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    device    INTEGER NOT NULL REFERENCES devices (id),
    wave      INTEGER NOT NULL,
    ordinal   INTEGER NOT NULL,
    bucket    INTEGER NOT NULL REFERENCES buckets (id),
    outcome   TEXT NOT NULL,
    -- When the outcome last changed.
    changed   INTEGER NOT NULL,
    -- Its last job in this Rotation.
    job       BLOB REFERENCES jobs (id),
    PRIMARY KEY (device, rotation)
) STRICT, WITHOUT ROWID;
INSERT INTO buckets (rotation, wave, grp, windows, planned)
    SELECT rotation, wave, '', -1, sum(outcome = 'Planned') FROM members_before GROUP BY rotation, wave;
INSERT INTO members (rotation, device, wave, ordinal, bucket, outcome, changed, job)
    SELECT m.rotation, m.device, m.wave, m.ordinal, b.id, m.outcome, r.started, m.job
    FROM members_before m JOIN rotations r ON r.id = m.rotation
    JOIN buckets b ON b.rotation = m.rotation AND b.wave = m.wave;
DROP TABLE members_before;
CREATE INDEX members_outcome ON members (rotation, outcome, wave, ordinal, bucket);
CREATE INDEX members_waiting ON members (bucket, ordinal) WHERE outcome = 'Planned';
INSERT INTO tallies (rotation, wave, outcome, n, changed)
    SELECT rotation, wave, outcome, count(*), max(changed) FROM members GROUP BY rotation, wave, outcome;

-- Changes are counted here; the program counts those that it adds, all at once.
CREATE TRIGGER members_change AFTER UPDATE OF outcome ON members WHEN old.outcome <> new.outcome BEGIN
    UPDATE tallies SET n = n - 1, changed = max(changed, new.changed)
        WHERE rotation = old.rotation AND wave = old.wave AND outcome = old.outcome;
    INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (new.rotation, new.wave, new.outcome, 1, new.changed)
        ON CONFLICT DO UPDATE SET n = n + 1, changed = max(changed, excluded.changed);
    UPDATE buckets SET planned = planned + (new.outcome = 'Planned') - (old.outcome = 'Planned')
        WHERE id = new.bucket AND (new.outcome = 'Planned' OR old.outcome = 'Planned');
END;
CREATE TRIGGER members_move AFTER UPDATE OF bucket ON members WHEN old.bucket <> new.bucket BEGIN
    UPDATE tallies SET n = n - 1, changed = max(changed, new.changed)
        WHERE rotation = old.rotation AND wave = old.wave AND outcome = old.outcome;
    INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (new.rotation, new.wave, new.outcome, 1, new.changed)
        ON CONFLICT DO UPDATE SET n = n + 1, changed = max(changed, excluded.changed);
    UPDATE buckets SET planned = planned - (old.outcome = 'Planned') WHERE id = old.bucket;
    UPDATE buckets SET planned = planned + (new.outcome = 'Planned') WHERE id = new.bucket;
END;
CREATE TRIGGER members_keep_their_place BEFORE UPDATE OF rotation, device ON members
    BEGIN SELECT raise(ABORT, 'members keep their place'); END;
CREATE TRIGGER members_are_kept BEFORE DELETE ON members BEGIN SELECT raise(ABORT, 'members are kept'); END;

-- A certificate template (by its hash) that a breach has stopped for a fleet's automatic Rotations.
CREATE TABLE template_blocks (
    fleet     INTEGER PRIMARY KEY REFERENCES fleets (id),
    template  TEXT NOT NULL,
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX devices_fleet ON devices (fleet) WHERE declared = 1;
-- Who is waited for, by what waits for it.
CREATE INDEX devices_queued ON devices (fleet, job_rotation, job_state, job_open)
    WHERE job_open = 1 AND job_state = 'Queued';
DROP INDEX devices_rotation;
CREATE INDEX devices_rotation ON devices (job_rotation, job_state, job_kind, job_open) WHERE job_open = 1;
