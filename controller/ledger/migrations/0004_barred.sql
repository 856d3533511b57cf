-- Devices that a person has revoked or put on hold, to count them.
CREATE INDEX devices_barred ON devices (fleet, bar) WHERE declared = 1 AND bar IS NOT NULL;
