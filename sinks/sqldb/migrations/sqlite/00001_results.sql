-- One row per token in results, its parts in attempts, warnings and assets.
--
-- Text that is not there is NULL, and NUL in text is U+FFFF 0 (value.go). Times are
-- UTC, "2006-01-02T15:04:05.000000Z".
-- A personal value x has what the privacy policy leaves of it in x: plain text, a
-- mask, or "seal:v1:..."; and its blind index, for look-ups by equality, in
-- x_index.

-- +goose Up
CREATE TABLE results (
    -- The first 32 hex digits of SHA-256("<product>:<token>").
    token_hash          TEXT    NOT NULL PRIMARY KEY,
    product             TEXT    NOT NULL,
    token               TEXT,
    account             TEXT,
    rule_id             TEXT,
    request_id          TEXT,
    fetched_at          TEXT    NOT NULL,
    -- The day of fetched_at, "2006-01-02".
    day                 TEXT    NOT NULL,

    -- The verdict: passed is 0 or 1, the codes are Tencent's.
    passed              INTEGER NOT NULL,
    code                INTEGER NOT NULL,
    message             TEXT,
    liveness            INTEGER,
    liveness_message    TEXT,
    liveness_mode       INTEGER NOT NULL,
    -- A JSON array of strings.
    liveness_tags       TEXT,
    compare             INTEGER,
    compare_message     TEXT,
    compare_library     TEXT,
    similarity          TEXT,
    intention           TEXT,
    intention_code      INTEGER,
    intention_message   TEXT,

    id_type             INTEGER NOT NULL,
    document_source     TEXT,
    -- JSON arrays, one entry per question: {"value": ..., "index": ...}, and codes.
    answers             TEXT,
    answer_codes        TEXT,

    -- What the check was made against, then what the document says (ocr_), then
    -- what only E-ID results have (eid_).
    name                TEXT,
    name_index          TEXT,
    id_card             TEXT,
    id_card_index       TEXT,
    mobile              TEXT,
    mobile_index        TEXT,
    location            TEXT,
    location_index      TEXT,
    extra               TEXT,
    extra_index         TEXT,
    ocr_name            TEXT,
    ocr_name_index      TEXT,
    ocr_id_card         TEXT,
    ocr_id_card_index   TEXT,
    ocr_gender          TEXT,
    ocr_gender_index    TEXT,
    ocr_nation          TEXT,
    ocr_nation_index    TEXT,
    ocr_birth           TEXT,
    ocr_birth_index     TEXT,
    ocr_address         TEXT,
    ocr_address_index   TEXT,
    ocr_authority       TEXT,
    ocr_authority_index TEXT,
    ocr_valid_date      TEXT,
    ocr_valid_date_index TEXT,
    pass_no             TEXT,
    pass_no_index       TEXT,
    visa_num            TEXT,
    visa_num_index      TEXT,
    eid_code            TEXT,
    eid_code_index      TEXT,
    eid_sign            TEXT,
    eid_sign_index      TEXT,
    eid_id_type         TEXT,

    -- The whole answer without its media, as JSON text under the policy's rule.
    raw                 TEXT
) STRICT;

-- The questions people ask: what came when, by account, rule, outcome and code;
-- and which results are of one person, whose values are sealed.
CREATE INDEX results_day           ON results (day);
CREATE INDEX results_fetched       ON results (fetched_at, token_hash);
CREATE INDEX results_account       ON results (account, fetched_at);
CREATE INDEX results_rule          ON results (rule_id, fetched_at);
CREATE INDEX results_outcome       ON results (passed, fetched_at);
CREATE INDEX results_code          ON results (code, fetched_at);
CREATE INDEX results_product       ON results (product, token_hash);
CREATE INDEX results_token         ON results (token);
CREATE INDEX results_request       ON results (request_id);
CREATE INDEX results_name          ON results (name_index) WHERE name_index IS NOT NULL;
CREATE INDEX results_id_card       ON results (id_card_index) WHERE id_card_index IS NOT NULL;
CREATE INDEX results_mobile        ON results (mobile_index) WHERE mobile_index IS NOT NULL;
CREATE INDEX results_ocr_name      ON results (ocr_name_index) WHERE ocr_name_index IS NOT NULL;
CREATE INDEX results_ocr_id_card   ON results (ocr_id_card_index) WHERE ocr_id_card_index IS NOT NULL;
CREATE INDEX results_pass_no       ON results (pass_no_index) WHERE pass_no_index IS NOT NULL;
CREATE INDEX results_eid_code      ON results (eid_code_index) WHERE eid_code_index IS NOT NULL;

-- The tries of the liveness step, in the API's order.
CREATE TABLE attempts (
    token_hash          TEXT    NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position            INTEGER NOT NULL,
    at                  TEXT,
    seq                 TEXT,
    -- Whether Tencent bills the try: 0 or 1.
    charged             INTEGER NOT NULL,
    code                INTEGER,
    message             TEXT,
    liveness_code       INTEGER,
    liveness_message    TEXT,
    liveness_mode       INTEGER NOT NULL,
    compare_code        INTEGER,
    compare_message     TEXT,
    compare_library     TEXT,
    similarity          TEXT,
    attempt_name        TEXT,
    attempt_name_index  TEXT,
    attempt_id_card     TEXT,
    attempt_id_card_index TEXT,
    PRIMARY KEY (token_hash, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX attempts_name         ON attempts (attempt_name_index) WHERE attempt_name_index IS NOT NULL;
CREATE INDEX attempts_id_card      ON attempts (attempt_id_card_index) WHERE attempt_id_card_index IS NOT NULL;

-- Remarks of the document check.
CREATE TABLE warnings (
    token_hash          TEXT    NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position            INTEGER NOT NULL,
    -- "front" or "back".
    side                TEXT,
    -- -9100 to -9107.
    code                INTEGER NOT NULL,
    PRIMARY KEY (token_hash, position)
) STRICT, WITHOUT ROWID;

-- Pictures, videos and sounds. Their bytes are not here.
CREATE TABLE assets (
    token_hash          TEXT    NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position            INTEGER NOT NULL,
    field               TEXT,
    kind                TEXT,
    content_type        TEXT,
    -- Of the bytes that were in the answer; NULL for an asset in COS.
    size                INTEGER,
    sha256              TEXT,
    crc64               TEXT,
    -- Where FaceID put the asset in COS; NULL for one that was in the answer.
    cos_bucket          TEXT,
    cos_region          TEXT,
    cos_key             TEXT,
    -- Where archive sinks put it: a JSON array of
    -- {"sink", "field", "location", "size", "sha256", "crc64"}.
    receipts            TEXT,
    PRIMARY KEY (token_hash, position)
) STRICT, WITHOUT ROWID;

-- Tokens that were erased. Their results are not recorded again.
CREATE TABLE erased (
    token_hash          TEXT    NOT NULL PRIMARY KEY,
    product             TEXT    NOT NULL,
    erased_at           TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE erased;
DROP TABLE assets;
DROP TABLE warnings;
DROP TABLE attempts;
DROP TABLE results;
