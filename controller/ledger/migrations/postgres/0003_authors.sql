-- Who has changed a certificate's standing last: 'person', 'revocation <uid>' or 'controller' (a retirement, for example).
ALTER TABLE marks ADD COLUMN author TEXT COLLATE "C" NOT NULL DEFAULT 'person';
UPDATE marks SET author = 'controller' WHERE fingerprint IN (SELECT old FROM retirements WHERE phase = 'Revoked') AND reason = 4;

-- Every word that was a permit of a device once: none opens its enrolment twice.
CREATE TABLE used_permits (
    device  BIGINT NOT NULL REFERENCES devices (id),
    permit  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (device, permit)
);
INSERT INTO used_permits SELECT id, reenrol_used FROM devices WHERE reenrol_used IS NOT NULL;
CREATE FUNCTION note_permit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO used_permits VALUES (new.id, new.reenrol_used) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER permits_are_used_once AFTER UPDATE OF reenrol_used ON devices FOR EACH ROW
    WHEN (new.reenrol_used IS NOT NULL AND new.reenrol_used IS DISTINCT FROM old.reenrol_used)
    EXECUTE FUNCTION note_permit();
