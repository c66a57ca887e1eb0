package privacy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// Audit is the log of who looked at, erased or changed the keys of personal data:
// a file of mode 0600 with one JSON object a line. The program only appends to it,
// and each entry holds the SHA-256 of the line before, so that an entry which was
// changed, added or taken out later is found by CheckAudit. What was cut off at the
// end is not: ship the file elsewhere as it grows.
//
// Several processes may append at once. No entry holds a personal value or a key.
type Audit struct{ path string }

// AuditEntry is one line of the audit log.
type AuditEntry struct {
	// Time is set by Append, in UTC.
	Time time.Time `json:"time"`
	// Action is what was done: reveal, export, erase, or a change of the keyring.
	Action string `json:"action"`
	// User and Host tell who did it, as the operating system knows them.
	User string `json:"user"`
	Host string `json:"host"`
	// Reason is what the user gave as one, such as a ticket number; may be empty.
	Reason string `json:"reason,omitempty"`
	// Product and TokenHash name the token, if it was about one.
	Product   result.Product `json:"product,omitempty"`
	TokenHash string         `json:"token_hash,omitempty"`
	// Fields are those whose values were shown or exported.
	Fields []Field `json:"fields,omitempty"`
	// Assets are those that were exported, each by its result.FieldName.
	Assets []string `json:"assets,omitempty"`
	// Previous is set by Append: the SHA-256 of the line before without its line
	// break, in hex; of nothing for the first one.
	Previous string `json:"previous"`
}

// maxAuditLine bounds a line of the log, in bytes.
const maxAuditLine = 64 << 10

// OpenAudit returns the log at path. The file is made by the first entry, its
// folder is not.
func OpenAudit(path string) *Audit { return &Audit{path} }

// Append adds an entry and returns when it is on disk.
func (a *Audit) Append(entry AuditEntry) (err error) {
	f, err := os.OpenFile(a.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the audit log: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the audit log %s: %w", a.path, err)
	}
	last, err := lastLine(f)
	if err != nil {
		return fmt.Errorf("read the audit log %s: %w", a.path, err)
	}
	entry.Time, entry.Previous = time.Now().UTC(), lineHash(last)
	line, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("write the audit log: %w", err)
	}
	if len(line) >= maxAuditLine {
		return errors.New("write the audit log: the entry is too long, shorten the reason")
	}
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("read the audit log %s: %w", a.path, err)
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Sync()); err != nil {
		_ = f.Truncate(info.Size()) // half an entry would be in the way of the next
		return fmt.Errorf("write the audit log %s: %w", a.path, err)
	}
	if last == nil {
		return syncFolder(filepath.Dir(a.path))
	}
	return nil
}

func lineHash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// lastLine returns the last line of the file without its line break; nil if the
// file is empty. A line that a crash cut off is not overwritten: it is an error,
// for somebody to look at.
func lastLine(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return nil, err
	}
	tail := make([]byte, min(info.Size(), maxAuditLine))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return nil, err
	}
	text, whole := bytes.CutSuffix(tail, []byte("\n"))
	if !whole {
		return nil, errors.New("its last line was cut off: move the file aside and keep it, a new one is begun")
	}
	return text[bytes.LastIndexByte(text, '\n')+1:], nil
}

func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("make the audit log last: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("make the audit log last: %w", err)
	}
	return nil
}

// CheckAudit reads a whole audit log and returns the number of its entries. The
// error names the first line that does not follow from the one before.
func CheckAudit(r io.Reader) (entries int, err error) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 4096), maxAuditLine)
	previous := lineHash(nil)
	for scanner.Scan() {
		var entry AuditEntry
		if json.Unmarshal(scanner.Bytes(), &entry) != nil || entry.Previous != previous {
			return entries, fmt.Errorf("line %d of the audit log was changed, or the line before it was changed or taken out", entries+1)
		}
		previous = lineHash(scanner.Bytes())
		entries++
	}
	if err := scanner.Err(); err != nil {
		return entries, fmt.Errorf("line %d of the audit log: %w", entries+1, err)
	}
	return entries, nil
}
