-- One row per token in results, its parts in attempts, warnings and assets.
--
-- Text that is not there is NULL, and NUL in text, which PostgreSQL has not, is
-- U+FFFF 0 (value.go). Keys and indexes compare byte by byte, whatever the
-- collation of the database.
-- A personal value x has what the privacy policy leaves of it in x: plain text, a
-- mask, or "seal:v1:..."; and its blind index, for look-ups by equality, in
-- x_index.

-- +goose Up
CREATE TABLE results (
    -- The first 32 hex digits of SHA-256("<product>:<token>").
    token_hash            text COLLATE "C" NOT NULL PRIMARY KEY,
    product               text COLLATE "C" NOT NULL,
    token                 text,
    account               text,
    rule_id               text,
    request_id            text,
    fetched_at            timestamptz NOT NULL,
    -- The day of fetched_at in UTC.
    day                   date NOT NULL,

    -- The verdict. The codes are Tencent's.
    passed                boolean NOT NULL,
    code                  bigint NOT NULL,
    message               text,
    liveness              bigint,
    liveness_message      text,
    liveness_mode         bigint NOT NULL,
    -- A JSON array of strings.
    liveness_tags         text,
    compare               bigint,
    compare_message       text,
    compare_library       text,
    similarity            text,
    intention             text,
    intention_code        bigint,
    intention_message     text,

    id_type               bigint NOT NULL,
    document_source       text,
    -- JSON arrays, one entry per question: {"value": ..., "index": ...}, and codes.
    answers               text,
    answer_codes          text,

    -- What the check was made against, then what the document says (ocr_), then
    -- what only E-ID results have (eid_).
    name                  text,
    name_index            text COLLATE "C",
    id_card               text,
    id_card_index         text COLLATE "C",
    mobile                text,
    mobile_index          text COLLATE "C",
    location              text,
    location_index        text COLLATE "C",
    extra                 text,
    extra_index           text COLLATE "C",
    ocr_name              text,
    ocr_name_index        text COLLATE "C",
    ocr_id_card           text,
    ocr_id_card_index     text COLLATE "C",
    ocr_gender            text,
    ocr_gender_index      text COLLATE "C",
    ocr_nation            text,
    ocr_nation_index      text COLLATE "C",
    ocr_birth             text,
    ocr_birth_index       text COLLATE "C",
    ocr_address           text,
    ocr_address_index     text COLLATE "C",
    ocr_authority         text,
    ocr_authority_index   text COLLATE "C",
    ocr_valid_date        text,
    ocr_valid_date_index  text COLLATE "C",
    pass_no               text,
    pass_no_index         text COLLATE "C",
    visa_num              text,
    visa_num_index        text COLLATE "C",
    eid_code              text,
    eid_code_index        text COLLATE "C",
    eid_sign              text,
    eid_sign_index        text COLLATE "C",
    eid_id_type           text,

    -- The whole answer without its media, as JSON text under the policy's rule.
    raw                   text
);

-- The questions people ask: what came when, by account, rule, outcome and code;
-- and which results are of one person, whose values are sealed. PostgreSQL refuses
-- index entries of more than 2704 bytes, so texts from outside are indexed by their
-- first 64 characters: left(rule_id, 64) = '1'.
CREATE INDEX results_day           ON results (day);
CREATE INDEX results_fetched       ON results (fetched_at, token_hash);
CREATE INDEX results_account       ON results (left(account, 64), fetched_at);
CREATE INDEX results_rule          ON results (left(rule_id, 64), fetched_at);
CREATE INDEX results_outcome       ON results (passed, fetched_at);
CREATE INDEX results_code          ON results (code, fetched_at);
CREATE INDEX results_product       ON results (product, token_hash);
CREATE INDEX results_token         ON results USING hash (token);
CREATE INDEX results_request       ON results USING hash (request_id);
CREATE INDEX results_name          ON results (name_index) WHERE name_index IS NOT NULL;
CREATE INDEX results_id_card       ON results (id_card_index) WHERE id_card_index IS NOT NULL;
CREATE INDEX results_mobile        ON results (mobile_index) WHERE mobile_index IS NOT NULL;
CREATE INDEX results_ocr_name      ON results (ocr_name_index) WHERE ocr_name_index IS NOT NULL;
CREATE INDEX results_ocr_id_card   ON results (ocr_id_card_index) WHERE ocr_id_card_index IS NOT NULL;
CREATE INDEX results_pass_no       ON results (pass_no_index) WHERE pass_no_index IS NOT NULL;
CREATE INDEX results_eid_code      ON results (eid_code_index) WHERE eid_code_index IS NOT NULL;

-- The tries of the liveness step, in the API's order.
CREATE TABLE attempts (
    token_hash            text COLLATE "C" NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position              integer NOT NULL,
    at                    timestamptz,
    seq                   text,
    -- Whether Tencent bills the try.
    charged               boolean NOT NULL,
    code                  bigint,
    message               text,
    liveness_code         bigint,
    liveness_message      text,
    liveness_mode         bigint NOT NULL,
    compare_code          bigint,
    compare_message       text,
    compare_library       text,
    similarity            text,
    attempt_name          text,
    attempt_name_index    text COLLATE "C",
    attempt_id_card       text,
    attempt_id_card_index text COLLATE "C",
    PRIMARY KEY (token_hash, position)
);

CREATE INDEX attempts_name         ON attempts (attempt_name_index) WHERE attempt_name_index IS NOT NULL;
CREATE INDEX attempts_id_card      ON attempts (attempt_id_card_index) WHERE attempt_id_card_index IS NOT NULL;

-- Remarks of the document check.
CREATE TABLE warnings (
    token_hash            text COLLATE "C" NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position              integer NOT NULL,
    -- "front" or "back".
    side                  text,
    -- -9100 to -9107.
    code                  bigint NOT NULL,
    PRIMARY KEY (token_hash, position)
);

-- Pictures, videos and sounds. Their bytes are not here.
CREATE TABLE assets (
    token_hash            text COLLATE "C" NOT NULL REFERENCES results (token_hash) ON DELETE CASCADE,
    position              integer NOT NULL,
    field                 text,
    kind                  text,
    content_type          text,
    -- Of the bytes that were in the answer; NULL for an asset in COS.
    size                  bigint,
    sha256                text,
    crc64                 text,
    -- Where FaceID put the asset in COS; NULL for one that was in the answer.
    cos_bucket            text,
    cos_region            text,
    cos_key               text,
    -- Where archive sinks put it: a JSON array of
    -- {"sink", "field", "location", "size", "sha256", "crc64"}.
    receipts              text,
    PRIMARY KEY (token_hash, position)
);

-- Tokens that were erased. Their results are not recorded again.
CREATE TABLE erased (
    token_hash            text COLLATE "C" NOT NULL PRIMARY KEY,
    product               text COLLATE "C" NOT NULL,
    erased_at             timestamptz NOT NULL
);

-- +goose Down
DROP TABLE erased;
DROP TABLE assets;
DROP TABLE warnings;
DROP TABLE attempts;
DROP TABLE results;
