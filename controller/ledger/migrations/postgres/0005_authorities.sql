-- The key of each CA's object: one that is gone is not made anew, whatever the object says.
CREATE TABLE authorities (
    namespace  TEXT COLLATE "C" NOT NULL,
    name       TEXT COLLATE "C" NOT NULL,
    key_id     TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, name)
);
