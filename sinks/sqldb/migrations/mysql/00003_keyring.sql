-- Which keyring seals the values in the other tables: by its fingerprint, which says
-- nothing about its keys. There is one row at most.

-- +goose Up
CREATE TABLE IF NOT EXISTS keyring (
    -- Always 'keyring'.
    name                  varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    fingerprint           longtext,
    -- The id of the key that sealed when this was written, and when it was made.
    active_key            longtext,
    since                 datetime(6)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- +goose Down
DROP TABLE keyring;
