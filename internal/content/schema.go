package content

import (
	"fmt"
	"time"

	"cairn.dev/cairn/internal/image"
)

// Schema is the registry's database: Schema[i] brings version i to i+1.
//
// Times are nanoseconds since 1970, digests one byte of algorithm and the raw
// hash (half the size of text in every index). Manifests lie together by
// repository and in order of digest, and their bodies stand apart, because
// retention goes through all of them: with a million images that is the
// difference between a minute and a few seconds.
//
// A link says that a blob belongs to a repository, a hold that it belongs to an
// owner outside of them (see hold.go), and a row of loose that an owner let go
// of it and the collector may look at it when that is due. Every blob has at
// least one of the three, and every blob a manifest names (manifest_blobs, whatever the
// manifest's state) has one in the manifest's repository. due is NULL while a
// manifest holds the link and otherwise when the collector may look at it.
// A hidden link belongs to a blob that a client deleted while a hidden
// manifest still needs it.
//
// artifact_type is NULL for what nearly all images are ([usualArtifact]).
//
// settled has one row: the bytes of blobs with ids up to upto are known to be on
// the disk (see settle.go). An id is never given twice.
//
// tags.pushed is the newest push; since is when the tag began to name its
// image, which a push of the same again does not change. It is 0 where that is
// not known: then pushed is the best there is.
//
// hidden_tags are the tags an expired or deleted image had. pull is 0 once a
// client deleted the name: then only a restore brings it back.
var Schema = []string{`
CREATE TABLE repositories (
	id   INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE
);
CREATE TABLE blobs (
	id      INTEGER PRIMARY KEY,
	digest  BLOB NOT NULL UNIQUE,
	size    BIGINT NOT NULL,
	corrupt INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE links (
	repo_id INTEGER NOT NULL REFERENCES repositories(id),
	blob_id INTEGER NOT NULL REFERENCES blobs(id),
	due     BIGINT,
	hidden  INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (repo_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX links_blob ON links(blob_id);
CREATE INDEX links_due ON links(due) WHERE due IS NOT NULL;
CREATE TABLE manifest_bodies (
	manifest_id INTEGER PRIMARY KEY,
	body        BLOB NOT NULL
);
CREATE TABLE manifests (
	id            INTEGER NOT NULL UNIQUE REFERENCES manifest_bodies(manifest_id),
	repo_id       INTEGER NOT NULL REFERENCES repositories(id),
	digest        BLOB NOT NULL,
	media_type    INTEGER NOT NULL,
	artifact_type TEXT,
	size          BIGINT NOT NULL,
	config        BLOB,
	subject       BLOB,
	children      BLOB,
	pushed        BIGINT NOT NULL,
	version       BIGINT NOT NULL,
	state         INTEGER NOT NULL DEFAULT 0,
	hidden_at     BIGINT NOT NULL DEFAULT 0,
	reason        TEXT NOT NULL DEFAULT '',
	PRIMARY KEY (repo_id, digest)
) WITHOUT ROWID;
CREATE INDEX manifests_subject ON manifests(repo_id, subject) WHERE subject IS NOT NULL;
CREATE INDEX manifests_hidden ON manifests(state) WHERE state <> 0;
CREATE TABLE manifest_blobs (
	manifest_id INTEGER NOT NULL REFERENCES manifests(id),
	blob_id     INTEGER NOT NULL REFERENCES blobs(id),
	repo_id     INTEGER NOT NULL REFERENCES repositories(id),
	PRIMARY KEY (manifest_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX manifest_blobs_blob ON manifest_blobs(blob_id, repo_id);
CREATE TABLE tags (
	repo_id     INTEGER NOT NULL REFERENCES repositories(id),
	name        TEXT NOT NULL,
	manifest_id INTEGER NOT NULL REFERENCES manifests(id),
	pushed      BIGINT NOT NULL,
	PRIMARY KEY (repo_id, name)
) WITHOUT ROWID;
CREATE INDEX tags_manifest ON tags(manifest_id);
CREATE TABLE hidden_tags (
	manifest_id INTEGER NOT NULL REFERENCES manifests(id),
	name        TEXT NOT NULL,
	repo_id     INTEGER NOT NULL REFERENCES repositories(id),
	pushed      BIGINT NOT NULL,
	pull        INTEGER NOT NULL DEFAULT 1,
	PRIMARY KEY (manifest_id, name)
) WITHOUT ROWID;
CREATE INDEX hidden_tags_name ON hidden_tags(repo_id, name);
CREATE TABLE uploads (
	id         TEXT PRIMARY KEY,
	repository TEXT NOT NULL,
	size       BIGINT NOT NULL,
	updated    BIGINT NOT NULL
);
CREATE TABLE pins (
	repo_id INTEGER NOT NULL REFERENCES repositories(id),
	digest  BLOB NOT NULL,
	reason  TEXT NOT NULL,
	actor   TEXT NOT NULL,
	created BIGINT NOT NULL,
	expires BIGINT NOT NULL,
	PRIMARY KEY (repo_id, digest)
);
CREATE TABLE audit (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	at         BIGINT NOT NULL,
	action     TEXT NOT NULL,
	repository TEXT NOT NULL,
	digest     BLOB NOT NULL,
	tags       TEXT NOT NULL,
	actor      TEXT NOT NULL,
	reason     TEXT NOT NULL,
	uses       TEXT NOT NULL
);
CREATE INDEX audit_repository ON audit(repository, id);
`, `
ALTER TABLE tags ADD COLUMN since BIGINT NOT NULL DEFAULT 0;
`, `
CREATE TABLE settled (
	one  INTEGER PRIMARY KEY CHECK (one = 1),
	upto INTEGER NOT NULL
);
INSERT INTO settled (one, upto) SELECT 1, COALESCE(MAX(id), 0) FROM blobs;
`, `
CREATE TABLE owners (
	id    INTEGER PRIMARY KEY,
	name  TEXT NOT NULL UNIQUE,
	since BIGINT NOT NULL
);
CREATE TABLE holds (
	owner_id INTEGER NOT NULL REFERENCES owners(id),
	blob_id  INTEGER NOT NULL REFERENCES blobs(id),
	PRIMARY KEY (owner_id, blob_id)
) WITHOUT ROWID;
CREATE INDEX holds_blob ON holds(blob_id);
CREATE TABLE loose (
	blob_id INTEGER PRIMARY KEY REFERENCES blobs(id),
	due     BIGINT NOT NULL
);
CREATE INDEX loose_due ON loose(due);
`}

// mediaTypes are the media types of manifests by the number they are stored as.
var mediaTypes = [...]string{
	1: image.MediaTypeManifest,
	2: image.MediaTypeIndex,
	3: image.MediaTypeDockerManifest,
	4: image.MediaTypeDockerList,
}

func mediaTypeID(s string) (int, error) {
	for i, t := range mediaTypes {
		if t == s && i > 0 {
			return i, nil
		}
	}
	return 0, &image.ManifestError{Why: fmt.Sprintf("media type %q is not supported", s)}
}

func mediaType(id int) string {
	if id > 0 && id < len(mediaTypes) {
		return mediaTypes[id]
	}
	return ""
}

// usualArtifact is the artifact type that a stored NULL means: that of a
// container image.
func usualArtifact(mediaType string) string {
	switch mediaType {
	case image.MediaTypeManifest:
		return "application/vnd.oci.image.config.v1+json"
	case image.MediaTypeDockerManifest:
		return "application/vnd.docker.container.image.v1+json"
	}
	return ""
}

// Algorithms, as stored.
const (
	algSHA256 = 1
	algSHA512 = 2
)

// key is the stored form of a digest. It is nil for one that did not come
// through image.ParseDigest, which therefore matches nothing.
func key(d image.Digest) []byte {
	s := string(d)
	var alg byte
	switch {
	case len(s) == len("sha256:")+64 && s[:7] == "sha256:":
		alg = algSHA256
	case len(s) == len("sha512:")+128 && s[:7] == "sha512:":
		alg = algSHA512
	default:
		return nil
	}
	k := make([]byte, 1, 1+(len(s)-7)/2)
	k[0] = alg
	for i := 7; i < len(s); i += 2 {
		hi, lo := unhex(s[i]), unhex(s[i+1])
		if hi > 15 || lo > 15 {
			return nil
		}
		k = append(k, hi<<4|lo)
	}
	return k
}

// orNull is k as an argument: NULL, not an empty value, when there is none.
func orNull(k []byte) any {
	if len(k) == 0 {
		return nil
	}
	return k
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 255
}

// digestOf reads what key wrote; nil is "".
func digestOf(k []byte) image.Digest {
	if len(k) == 0 {
		return ""
	}
	d, rest := cutKey(k)
	if len(rest) != 0 {
		return ""
	}
	return d
}

// cutKey reads the first of several digests written one after the other. A
// damaged list reads as one digest "" and no rest.
func cutKey(k []byte) (d image.Digest, rest []byte) {
	n, name := 0, ""
	switch k[0] {
	case algSHA256:
		n, name = 33, "sha256:"
	case algSHA512:
		n, name = 65, "sha512:"
	}
	if n == 0 || len(k) < n {
		return "", nil
	}
	const digits = "0123456789abcdef"
	var buf [7 + 128]byte
	b := append(buf[:0], name...)
	for _, c := range k[1:n] {
		b = append(b, digits[c>>4], digits[c&15])
	}
	return image.Digest(b), k[n:]
}

// digestsOf reads digests written one after the other.
func digestsOf(k []byte) []image.Digest {
	if len(k) == 0 {
		return nil
	}
	ds := make([]image.Digest, 0, (len(k)+32)/33)
	for len(k) > 0 {
		var d image.Digest
		if d, k = cutKey(k); d != "" {
			ds = append(ds, d)
		}
	}
	return ds
}

func checkDigest(d image.Digest) error {
	if key(d) == nil {
		_, err := image.ParseDigest(string(d))
		if err == nil {
			err = fmt.Errorf("digest %q cannot be stored", d)
		}
		return err
	}
	return nil
}

// stamp is the stored form of a time; zero is 0.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func timeOf(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
