-- Who has changed a certificate's standing last: 'person', 'revocation <uid>' or 'controller' (a retirement, for example).
ALTER TABLE marks ADD COLUMN author TEXT NOT NULL DEFAULT 'person';
UPDATE marks SET author = 'controller' WHERE fingerprint IN (SELECT old FROM retirements WHERE phase = 'Revoked') AND reason = 4;

-- Every word that was a permit of a device once: none opens its enrolment twice.
CREATE TABLE used_permits (
    device  INTEGER NOT NULL REFERENCES devices (id),
    permit  TEXT NOT NULL,
    PRIMARY KEY (device, permit)
) STRICT, WITHOUT ROWID;
INSERT INTO used_permits SELECT id, reenrol_used FROM devices WHERE reenrol_used IS NOT NULL;
CREATE TRIGGER permits_are_used_once AFTER UPDATE OF reenrol_used ON devices
    WHEN new.reenrol_used IS NOT NULL AND new.reenrol_used IS NOT old.reenrol_used
    BEGIN INSERT INTO used_permits VALUES (new.id, new.reenrol_used) ON CONFLICT DO NOTHING; END;
