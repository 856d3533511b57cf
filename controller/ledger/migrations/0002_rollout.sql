-- Staged rotation: what a Rotation goes by and how far it is, members with groups and windows, their tallies, blocked
-- templates. strategy, plan and run are JSON; a Rotation of before has neither of the first two.
ALTER TABLE rotations ADD COLUMN strategy TEXT;
ALTER TABLE rotations ADD COLUMN plan TEXT;
ALTER TABLE rotations ADD COLUMN run TEXT NOT NULL DEFAULT '{}';

ALTER TABLE members ADD COLUMN grp TEXT NOT NULL DEFAULT '';
-- Bit i: window i of the strategy is for this device. Without windows, all bits are set.
ALTER TABLE members ADD COLUMN windows INTEGER NOT NULL DEFAULT -1;
-- When the outcome last changed.
ALTER TABLE members ADD COLUMN changed INTEGER NOT NULL DEFAULT 0;
UPDATE members SET changed = (SELECT started FROM rotations WHERE id = rotation);
DROP INDEX members_outcome;
CREATE INDEX members_outcome ON members (rotation, outcome, wave, ordinal, grp, windows);
CREATE INDEX members_reverting ON members (device) WHERE outcome = 'Reverting';

-- Members by wave and outcome, counted by the triggers below.
CREATE TABLE tallies (
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    wave      INTEGER NOT NULL,
    outcome   TEXT NOT NULL,
    n         INTEGER NOT NULL,
    -- When one of them last came or went.
    changed   INTEGER NOT NULL,
    PRIMARY KEY (rotation, wave, outcome)
) STRICT, WITHOUT ROWID;
INSERT INTO tallies (rotation, wave, outcome, n, changed)
    SELECT rotation, wave, outcome, count(*), max(changed) FROM members GROUP BY rotation, wave, outcome;

CREATE TRIGGER members_come AFTER INSERT ON members BEGIN
    INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (new.rotation, new.wave, new.outcome, 1, new.changed)
        ON CONFLICT DO UPDATE SET n = n + 1, changed = max(changed, excluded.changed);
END;
CREATE TRIGGER members_change AFTER UPDATE OF outcome ON members WHEN old.outcome <> new.outcome BEGIN
    UPDATE tallies SET n = n - 1, changed = max(changed, new.changed)
        WHERE rotation = old.rotation AND wave = old.wave AND outcome = old.outcome;
    INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (new.rotation, new.wave, new.outcome, 1, new.changed)
        ON CONFLICT DO UPDATE SET n = n + 1, changed = max(changed, excluded.changed);
END;
CREATE TRIGGER members_move AFTER UPDATE OF wave ON members WHEN old.wave <> new.wave BEGIN
    UPDATE tallies SET n = n - 1, changed = max(changed, new.changed)
        WHERE rotation = old.rotation AND wave = old.wave AND outcome = old.outcome;
    INSERT INTO tallies (rotation, wave, outcome, n, changed) VALUES (new.rotation, new.wave, new.outcome, 1, new.changed)
        ON CONFLICT DO UPDATE SET n = n + 1, changed = max(changed, excluded.changed);
END;
CREATE TRIGGER members_stay_in_place BEFORE UPDATE OF rotation, device ON members
    BEGIN SELECT raise(ABORT, 'members stay in their Rotation'); END;
CREATE TRIGGER members_are_kept BEFORE DELETE ON members BEGIN SELECT raise(ABORT, 'members are kept'); END;

-- A certificate template (by its hash) that a breach has stopped for a fleet's automatic Rotations.
CREATE TABLE template_blocks (
    fleet     INTEGER PRIMARY KEY REFERENCES fleets (id),
    template  TEXT NOT NULL,
    rotation  INTEGER NOT NULL REFERENCES rotations (id),
    at        INTEGER NOT NULL
) STRICT;

CREATE INDEX devices_fleet ON devices (fleet) WHERE declared = 1;
