-- What of an answer is not as it should be: whether its verdict cannot be read, fields
-- of another type than documented, and parts that the check has and the result has not.

-- +goose Up
ALTER TABLE results ADD COLUMN unreadable INTEGER NOT NULL DEFAULT 0;
ALTER TABLE results ADD COLUMN unread TEXT;
ALTER TABLE results ADD COLUMN missing TEXT;

-- +goose Down
ALTER TABLE results DROP COLUMN unreadable;
ALTER TABLE results DROP COLUMN unread;
ALTER TABLE results DROP COLUMN missing;
