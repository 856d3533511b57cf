-- Of which part of the work an epoch is: '' the controller's, a broker's id, '*' all of it (a restored ledger ends everybody's).
ALTER TABLE epochs ADD COLUMN part TEXT COLLATE "C" NOT NULL DEFAULT '';
CREATE INDEX epochs_part ON epochs (part, epoch);

-- Each broker's devices are looked after by themselves.
DROP INDEX devices_wake;
CREATE INDEX devices_wake ON devices (broker, wake_at) WHERE wake_at IS NOT NULL;
DROP INDEX devices_unprojected;
CREATE INDEX devices_unprojected ON devices (broker, changed_at) WHERE project_rev > projected_rev;
