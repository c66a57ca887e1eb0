-- Why a token was erased, as whoever did it said.

-- +goose Up
ALTER TABLE erased ADD COLUMN reason text;

-- +goose Down
ALTER TABLE erased DROP COLUMN reason;
