BEGIN TRANSACTION;
CREATE TABLE feedback (
	request_id TEXT NOT NULL,
	"index" INTEGER NOT NULL,
	position INTEGER NOT NULL,
	caller TEXT NOT NULL,
	kind TEXT NOT NULL,
	model TEXT NOT NULL,
	version BIGINT NOT NULL,
	predicted TEXT NOT NULL,
	confidence DOUBLE NOT NULL,
	is_digit DOUBLE,
	input BLOB NOT NULL,
	answered_at DATETIME NOT NULL,
	held_out BOOLEAN NOT NULL,
	label TEXT,
	labelled_at DATETIME,
	source TEXT,
	text TEXT,
	original BLOB,
	digest TEXT NOT NULL,
	PRIMARY KEY (request_id, "index", position, caller)
);
INSERT INTO "feedback" VALUES('released',0,0,'','predict','digits',1,'5',0.75,0.9,X'706E672D72656C6561736564','2026-11-01 12:00:00.000000',0,'6','2026-11-01 13:00:00.000000','feedback',NULL,NULL,'3e28a17ff2c4c279bfdd82946e05966564b6bc3bed9efd6821532e2897240f64');
CREATE TABLE feedback_schema (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT feedback_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "feedback_schema" VALUES('0001');
CREATE TABLE kept (
	request_id TEXT NOT NULL,
	"index" INTEGER NOT NULL,
	position INTEGER NOT NULL,
	caller TEXT NOT NULL,
	kind TEXT NOT NULL,
	model TEXT NOT NULL,
	version BIGINT NOT NULL,
	predicted TEXT NOT NULL,
	confidence DOUBLE NOT NULL,
	is_digit DOUBLE,
	input BLOB NOT NULL,
	answered_at DATETIME NOT NULL,
	held_out BOOLEAN NOT NULL,
	label TEXT,
	labelled_at DATETIME,
	source TEXT,
	text TEXT,
	original BLOB,
	PRIMARY KEY (request_id, "index", position, caller)
);
CREATE INDEX feedback_answered_at ON feedback (answered_at);
CREATE INDEX ix_feedback_digest ON feedback (digest);
CREATE INDEX kept_answered_at ON kept (answered_at);
COMMIT;
-- Saving:
INSERT INTO feedback (request_id, "index", position, caller, kind, model, version, predicted, confidence,
is_digit, input, answered_at, held_out, label, labelled_at, source, text, original, digest) VALUES (?, ?, ?,
?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request_id, "index", position, caller) DO UPDATE
SET request_id = excluded.request_id, "index" = excluded."index", position = excluded.position, caller =
excluded.caller, kind = excluded.kind, model = excluded.model, version = excluded.version, predicted =
excluded.predicted, confidence = excluded.confidence, is_digit = excluded.is_digit, input = excluded.input,
answered_at = excluded.answered_at, held_out = excluded.held_out, label = excluded.label, labelled_at =
excluded.labelled_at, source = excluded.source, text = excluded.text, original = excluded.original, digest =
excluded.digest WHERE feedback.labelled_at IS NULL OR excluded.labelled_at >= feedback.labelled_at
