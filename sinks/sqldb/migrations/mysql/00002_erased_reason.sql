-- Why a token was erased, as whoever did it said.
--
-- ADD COLUMN commits at once and cannot be repeated, so what is there is looked at
-- first, for the case that the process dies before the change is noted.

-- +goose Up
SET @change = IF(
    EXISTS (SELECT 1 FROM information_schema.columns
        WHERE table_schema = DATABASE() AND table_name = 'erased' AND column_name = 'reason'),
    'DO 0', 'ALTER TABLE erased ADD COLUMN reason longtext');
PREPARE change_erased FROM @change;
EXECUTE change_erased;
DEALLOCATE PREPARE change_erased;

-- +goose Down
ALTER TABLE erased DROP COLUMN reason;
