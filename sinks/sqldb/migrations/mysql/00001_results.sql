-- One row per token in results, its parts in attempts, warnings and assets.
--
-- Text that is not there is NULL, and NUL in text is U+FFFF 0 (value.go). Times are
-- UTC. A personal value x has what the privacy policy leaves of it in x: plain text, a
-- mask, or "seal:v1:..."; and its blind index, for look-ups by equality, in
-- x_index. Text compares byte by byte, but for spaces at its end.
--
-- A statement that defines something commits at once in MySQL. Each one here can be
-- repeated, for the case that the process dies between two.
--
-- There are no foreign keys, for some databases that speak MySQL's protocol have
-- none, distributed ones above all. Who deletes from results by hand deletes the
-- rows of the same token_hash in attempts, warnings and assets, too.

-- +goose Up
CREATE TABLE IF NOT EXISTS results (
    -- The first 32 hex digits of SHA-256("<product>:<token>").
    token_hash            char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    product               varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    token                 longtext,
    account               longtext,
    rule_id               longtext,
    request_id            longtext,
    fetched_at            datetime(6) NOT NULL,
    -- The day of fetched_at in UTC.
    day                   date NOT NULL,

    -- The verdict: passed is 0 or 1, the codes are Tencent's.
    passed                boolean NOT NULL,
    code                  bigint NOT NULL,
    message               longtext,
    liveness              bigint,
    liveness_message      longtext,
    liveness_mode         bigint NOT NULL,
    -- A JSON array of strings.
    liveness_tags         longtext,
    compare               bigint,
    compare_message       longtext,
    compare_library       longtext,
    similarity            longtext,
    intention             longtext,
    intention_code        bigint,
    intention_message     longtext,

    id_type               bigint NOT NULL,
    document_source       longtext,
    -- JSON arrays, one entry per question: {"value": ..., "index": ...}, and codes.
    answers               longtext,
    answer_codes          longtext,

    -- What the check was made against, then what the document says (ocr_), then
    -- what only E-ID results have (eid_).
    name                  longtext,
    name_index            varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    id_card               longtext,
    id_card_index         varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    mobile                longtext,
    mobile_index          varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    location              longtext,
    location_index        varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    extra                 longtext,
    extra_index           varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_name              longtext,
    ocr_name_index        varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_id_card           longtext,
    ocr_id_card_index     varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_gender            longtext,
    ocr_gender_index      varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_nation            longtext,
    ocr_nation_index      varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_birth             longtext,
    ocr_birth_index       varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_address           longtext,
    ocr_address_index     varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_authority         longtext,
    ocr_authority_index   varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    ocr_valid_date        longtext,
    ocr_valid_date_index  varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    pass_no               longtext,
    pass_no_index         varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    visa_num              longtext,
    visa_num_index        varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    eid_code              longtext,
    eid_code_index        varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    eid_sign              longtext,
    eid_sign_index        varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    eid_id_type           longtext,

    -- The whole answer without its media, as JSON text under the policy's rule.
    raw                   longtext,

    -- The questions people ask: what came when, by account, rule, outcome and
    -- code; and which results are of one person, whose values are sealed. MySQL
    -- indexes the beginning of long texts.
    KEY results_day (day),
    KEY results_fetched (fetched_at, token_hash),
    KEY results_account (account(64), fetched_at),
    KEY results_rule (rule_id(64), fetched_at),
    KEY results_outcome (passed, fetched_at),
    KEY results_code (code, fetched_at),
    KEY results_product (product, token_hash),
    KEY results_token (token(64)),
    KEY results_request (request_id(64)),
    KEY results_name (name_index),
    KEY results_id_card (id_card_index),
    KEY results_mobile (mobile_index),
    KEY results_ocr_name (ocr_name_index),
    KEY results_ocr_id_card (ocr_id_card_index),
    KEY results_pass_no (pass_no_index),
    KEY results_eid_code (eid_code_index)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- The tries of the liveness step, in the API's order.
CREATE TABLE IF NOT EXISTS attempts (
    token_hash            char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    position              int NOT NULL,
    at                    datetime(6),
    seq                   longtext,
    -- Whether Tencent bills the try: 0 or 1.
    charged               boolean NOT NULL,
    code                  bigint,
    message               longtext,
    liveness_code         bigint,
    liveness_message      longtext,
    liveness_mode         bigint NOT NULL,
    compare_code          bigint,
    compare_message       longtext,
    compare_library       longtext,
    similarity            longtext,
    attempt_name          longtext,
    attempt_name_index    varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    attempt_id_card       longtext,
    attempt_id_card_index varchar(64) CHARACTER SET ascii COLLATE ascii_bin,
    PRIMARY KEY (token_hash, position),
    KEY attempts_name (attempt_name_index),
    KEY attempts_id_card (attempt_id_card_index)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Remarks of the document check.
CREATE TABLE IF NOT EXISTS warnings (
    token_hash            char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    position              int NOT NULL,
    -- "front" or "back".
    side                  longtext,
    -- -9100 to -9107.
    code                  bigint NOT NULL,
    PRIMARY KEY (token_hash, position)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Pictures, videos and sounds. Their bytes are not here.
CREATE TABLE IF NOT EXISTS assets (
    token_hash            char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    position              int NOT NULL,
    field                 longtext,
    kind                  longtext,
    content_type          longtext,
    -- Of the bytes that were in the answer; NULL for an asset in COS.
    size                  bigint,
    sha256                longtext,
    crc64                 longtext,
    -- Where FaceID put the asset in COS; NULL for one that was in the answer.
    cos_bucket            longtext,
    cos_region            longtext,
    cos_key               longtext,
    -- Where archive sinks put it: a JSON array of
    -- {"sink", "field", "location", "size", "sha256", "crc64"}.
    receipts              longtext,
    PRIMARY KEY (token_hash, position)
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- Tokens that were erased. Their results are not recorded again.
CREATE TABLE IF NOT EXISTS erased (
    token_hash            char(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    product               varchar(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    erased_at             datetime(6) NOT NULL
) ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET = utf8mb4 COLLATE = utf8mb4_bin;

-- +goose Down
DROP TABLE erased;
DROP TABLE assets;
DROP TABLE warnings;
DROP TABLE attempts;
DROP TABLE results;
