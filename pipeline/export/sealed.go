package export

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
)

// sealed is an export as a tar file that is encrypted for its recipients while it is
// written: nothing of it is on disk in clear.
type sealed struct {
	path string
	// prefix is the folder in the tar file.
	prefix string
	file   *os.File
	// recipients are who can open it.
	recipients []age.Recipient
	age        io.WriteCloser
	// tar is nil before the first file.
	tar  *tar.Writer
	now  time.Time
	done bool
}

// openSealed begins a file. One that is there already cannot be looked into, so it is
// in the way.
func openSealed(path, prefix string, recipients []age.Recipient) (place, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("%s %w: move it away, or name another folder with --to", path, ErrExists)
	}

	file, err := claim(path+partSuffix, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	s := &sealed{path: path, prefix: prefix, file: file, recipients: recipients, now: time.Now().UTC().Truncate(time.Second)}
	if err := errors.Join(file.Chmod(0o600), file.Truncate(0)); err != nil { // what was cut off
		return nil, errors.Join(fmt.Errorf("begin an export: %w", err), s.close())
	}
	return s, nil
}

// begin writes what is in front of the first file.
func (s *sealed) begin() (err error) {
	if s.tar != nil {
		return nil
	}
	if s.age, err = age.Encrypt(s.file, s.recipients...); err != nil {
		return fmt.Errorf("encrypt an export: %w", err)
	}
	s.tar = tar.NewWriter(s.age)
	return nil
}

// add reads a source twice: a tar file needs the size in front, and what was written
// cannot be taken back.
func (s *sealed) add(ctx context.Context, name string, src source) (digest, error) {
	first := src
	first.read = nil
	want, err := first.copyTo(ctx, io.Discard)
	if err != nil {
		return digest{}, err
	}

	if err := s.begin(); err != nil {
		return digest{}, err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: s.prefix + "/" + name, Size: want.size, Mode: 0o600, ModTime: s.now}
	if err := s.tar.WriteHeader(header); err != nil {
		return digest{}, fmt.Errorf("write an export: %w", err)
	}
	got, err := src.copyTo(ctx, s.tar)
	if err == nil && got != want {
		err = errors.New("it is not what it was a moment ago")
	}
	if err != nil {
		// Not a *readError: the file is spoilt.
		return digest{}, fmt.Errorf("write %s into an export: %s; export the token again", name, err.Error())
	}
	return got, nil
}

func (s *sealed) finish(*Manifest) (path string, unchanged bool, err error) {
	err = s.tar.Close()
	for _, step := range []func() error{s.age.Close, s.file.Sync, func() error { return os.Rename(s.path+partSuffix, s.path) }} {
		if err == nil {
			err = step()
		}
	}
	if err != nil {
		return "", false, fmt.Errorf("finish an export: %w", err)
	}
	s.done = true
	return s.path, false, syncFolder(filepath.Dir(s.path))
}

func (s *sealed) close() error {
	var err error
	if !s.done {
		err = os.Remove(s.path + partSuffix)
	}
	return errors.Join(err, s.file.Close())
}

// ParseRecipients reads recipients of age, such as "age1…", one a line; lines that
// begin with # are comments. No error holds the text of a line: it may be a secret key
// that was taken for a recipient.
func ParseRecipients(text io.Reader) ([]age.Recipient, error) {
	lines, err := io.ReadAll(io.LimitReader(text, maxRecipients+1))
	if err != nil {
		return nil, err
	}
	if len(lines) > maxRecipients {
		return nil, errors.New("it is too long for a list of recipients")
	}

	var recipients []age.Recipient
	for i, line := range strings.Split(string(lines), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(strings.ToUpper(line), "AGE-SECRET-KEY-") {
			return nil, fmt.Errorf("line %d is a secret key: give the recipient that belongs to it, which age-keygen -y prints", i+1)
		}
		one, err := age.ParseRecipients(strings.NewReader(line))
		if err != nil {
			return nil, fmt.Errorf("line %d is not a recipient of age, such as age1…, or has a typing error", i+1)
		}
		recipients = append(recipients, one...)
	}
	if len(recipients) == 0 {
		return nil, errors.New("there is no recipient in it")
	}
	return recipients, nil
}

// maxRecipients bounds a list of recipients, in bytes.
const maxRecipients = 1 << 20

// CheckRecipients says whether one file can be encrypted for all recipients.
func CheckRecipients(recipients []age.Recipient) error {
	_, err := age.Encrypt(io.Discard, recipients...)
	return err
}
