-- The key of each CA's object: one that is gone is not made anew, whatever the object says.
CREATE TABLE authorities (
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    key_id     TEXT NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;
