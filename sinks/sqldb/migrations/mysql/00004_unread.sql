-- What of an answer is not as it should be: whether its verdict cannot be read, fields
-- of another type than documented, and parts that the check has and the result has not.
--
-- ADD COLUMN commits at once and cannot be repeated, so what is there is looked at
-- first, for the case that the process dies before the change is noted.

-- +goose Up
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'results' AND column_name = 'unreadable'),
    'DO 0', 'ALTER TABLE results ADD COLUMN unreadable boolean NOT NULL DEFAULT false, ADD COLUMN unread longtext, ADD COLUMN missing longtext');
PREPARE change_results FROM @change;
EXECUTE change_results;
DEALLOCATE PREPARE change_results;

-- +goose Down
ALTER TABLE results DROP COLUMN unreadable, DROP COLUMN unread, DROP COLUMN missing;
