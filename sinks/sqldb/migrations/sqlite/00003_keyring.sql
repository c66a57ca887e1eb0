-- Which keyring seals the values in the other tables: by its fingerprint, which says
-- nothing about its keys. There is one row at most.

-- +goose Up
CREATE TABLE keyring (
    -- Always 'keyring'.
    name                TEXT    NOT NULL PRIMARY KEY,
    fingerprint         TEXT,
    -- The id of the key that sealed when this was written, and when it was made.
    active_key          TEXT,
    since               TEXT
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE keyring;
