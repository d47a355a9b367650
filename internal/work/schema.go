package work

// Schema is that of the work server's database.
var Schema = []string{`
CREATE TABLE work_documents (
	id   INTEGER PRIMARY KEY,
	hash BLOB NOT NULL UNIQUE,
	body BLOB NOT NULL
);
CREATE TABLE work_runs (
	num       INTEGER PRIMARY KEY AUTOINCREMENT,
	id        TEXT NOT NULL UNIQUE,
	key       TEXT UNIQUE,             -- who submits the same again gets the same run
	name      TEXT NOT NULL,
	namespace TEXT NOT NULL,
	pool      TEXT NOT NULL,           -- of the workers that run its tasks
	by        TEXT NOT NULL,
	documents INTEGER NOT NULL REFERENCES work_documents(id),
	schedule  TEXT NOT NULL DEFAULT '',
	live      INTEGER NOT NULL,        -- 1: it has not ended
	phase     TEXT NOT NULL,
	message   TEXT NOT NULL DEFAULT '',
	created   INTEGER NOT NULL,        -- milliseconds since 1970, as all times
	ended     INTEGER NOT NULL DEFAULT 0,
	gone      INTEGER NOT NULL DEFAULT 0, -- when an ended one is forgotten
	total     INTEGER NOT NULL DEFAULT 0,
	succeeded INTEGER NOT NULL DEFAULT 0,
	failed    INTEGER NOT NULL DEFAULT 0,
	skipped   INTEGER NOT NULL DEFAULT 0,
	retries   INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX work_runs_live ON work_runs(num) WHERE live = 1;
CREATE INDEX work_runs_namespace ON work_runs(namespace, num);
CREATE INDEX work_runs_phase ON work_runs(phase, num);
CREATE INDEX work_runs_name ON work_runs(name, num);
CREATE INDEX work_runs_schedule ON work_runs(schedule, num) WHERE schedule <> '';
CREATE INDEX work_runs_gone ON work_runs(gone) WHERE gone > 0;
CREATE INDEX work_runs_documents ON work_runs(documents);

-- What happened to a run since its snapshot.
CREATE TABLE work_log (
	run    INTEGER NOT NULL,
	seq    INTEGER NOT NULL,
	events BLOB NOT NULL,
	PRIMARY KEY (run, seq)
) WITHOUT ROWID;
CREATE TABLE work_snapshots (
	run   INTEGER PRIMARY KEY,
	seq   INTEGER NOT NULL, -- the newest event that it holds
	state BLOB NOT NULL
);
-- What items of fan-outs left, until it is gathered and after.
CREATE TABLE work_outputs (
	run  INTEGER NOT NULL,
	node INTEGER NOT NULL,
	item INTEGER NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (run, node, item)
) WITHOUT ROWID;
CREATE TABLE work_memo (
	namespace TEXT NOT NULL,
	cache TEXT NOT NULL,
	key   TEXT NOT NULL,
	at    INTEGER NOT NULL,
	body  BLOB NOT NULL,
	PRIMARY KEY (namespace, cache, key)
) WITHOUT ROWID;
CREATE INDEX work_memo_at ON work_memo(at);
CREATE TABLE work_schedules (
	namespace TEXT NOT NULL,
	name      TEXT NOT NULL,
	pool      TEXT NOT NULL,           -- of its runs
	by        TEXT NOT NULL,
	documents INTEGER NOT NULL REFERENCES work_documents(id),
	suspended INTEGER NOT NULL DEFAULT 0,
	created   INTEGER NOT NULL,
	last      INTEGER NOT NULL,        -- the newest time that was dealt with
	PRIMARY KEY (namespace, name)
) WITHOUT ROWID;
CREATE INDEX work_schedules_documents ON work_schedules(documents);

-- Documents that workflows refer to by their names.
CREATE TABLE work_templates (
	namespace TEXT NOT NULL,           -- '' of those for all namespaces
	kind      TEXT NOT NULL,
	name      TEXT NOT NULL,
	by        TEXT NOT NULL,
	changed   INTEGER NOT NULL,
	body      BLOB NOT NULL,
	PRIMARY KEY (namespace, kind, name)
) WITHOUT ROWID;
`, `
-- When the newest run that a schedule began was due; 0: it began none.
ALTER TABLE work_schedules ADD COLUMN began INTEGER NOT NULL DEFAULT 0;
`, `
-- Tasks that were ended before their time, or never begun because of that.
ALTER TABLE work_runs ADD COLUMN canceled INTEGER NOT NULL DEFAULT 0;
`}
