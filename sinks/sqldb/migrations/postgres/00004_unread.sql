-- What of an answer is not as it should be: whether its verdict cannot be read, fields
-- of another type than documented, and parts that the check has and the result has not.

-- +goose Up
ALTER TABLE results
    ADD COLUMN unreadable boolean NOT NULL DEFAULT false,
    ADD COLUMN unread     text,
    ADD COLUMN missing    text;

-- +goose Down
ALTER TABLE results
    DROP COLUMN unreadable,
    DROP COLUMN unread,
    DROP COLUMN missing;
