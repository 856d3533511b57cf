-- What is new since a Rotation began is told by the order in which certificates were issued: clocks are put right now and then.
-- The certificate issued last when it began; NULL for those that began before this was kept.
ALTER TABLE rotations ADD COLUMN newest INTEGER;
-- The certificate that the device had when it became a member.
ALTER TABLE members ADD COLUMN held INTEGER;
