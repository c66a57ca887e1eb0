-- Which keyring seals the values in the other tables: by its fingerprint, which says
-- nothing about its keys. There is one row at most.

-- +goose Up
CREATE TABLE keyring (
    -- Always 'keyring'.
    name                  text COLLATE "C" NOT NULL PRIMARY KEY,
    fingerprint           text COLLATE "C",
    -- The id of the key that sealed when this was written, and when it was made.
    active_key            text COLLATE "C",
    since                 timestamptz
);

-- +goose Down
DROP TABLE keyring;
