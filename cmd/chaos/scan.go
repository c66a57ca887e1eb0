//go:build linux

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

const (
	// head is how many bytes of a needle are looked up at every place.
	head = 8
	// longestNeedle bounds needles, in bytes.
	longestNeedle = 64
	scanBuffer    = 1 << 20
	// slice is how many bytes of a medium a needle has; a multiple of 3, as base64
	// wants.
	slice = 24
)

// scanner searches for many needles at once: what must be readable nowhere.
type scanner struct {
	// byHead are the needles by their first bytes, and maybe is a bit for each of
	// those, to pass over everything else.
	byHead map[uint64][]needle
	maybe  []uint64
	bytes  int64
	files  int
}

type needle struct {
	text []byte
	what string
}

const maybeBits = 24

func newScanner() *scanner {
	return &scanner{byHead: map[uint64][]needle{}, maybe: make([]uint64, 1<<(maybeBits-6))}
}

func spread(v uint64) (word int, bit uint64) {
	h := v * 0x9e3779b97f4a7c15 >> (64 - maybeBits)
	return int(h >> 6), 1 << (h & 63)
}

func (s *scanner) add(what string, text []byte) {
	text = text[:min(len(text), longestNeedle)]
	v := binary.LittleEndian.Uint64(text)
	s.byHead[v] = append(s.byHead[v], needle{bytes.Clone(text), what})
	word, bit := spread(v)
	s.maybe[word] |= bit
}

// addText adds a text as it is, in JSON's escapes, in hex, and in base64 at any place of a longer
// text.
func (s *scanner) addText(what, text string) {
	s.add(what, []byte(text))
	s.add(what+" in ASCII", []byte(strings.Trim(strconv.QuoteToASCII(text), `"`)))
	s.add(what+" in hex", []byte(hex.EncodeToString([]byte(text))))
	s.add(what+" in HEX", []byte(strings.ToUpper(hex.EncodeToString([]byte(text)))))
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		// The first group holds what is before, the last what is behind.
		whole := encoded[4*min(shift, 1) : len(encoded)/4*4-4]
		if len(whole) >= head {
			s.add(what+" in base64", []byte(whole))
		}
	}
}

// needlesOf makes a scanner for all that is personal of the tokens: the marks in
// every personal value, and slices of every medium as it is and in base64.
func needlesOf(tokens []*issued) (*scanner, error) {
	s := newScanner()
	for what, mark := range map[string]string{"a name": markName, "an id number": markIDCard, "an address": markAddress, "a phone number": markMobile} {
		s.addText(what, mark)
	}
	for _, t := range tokens {
		for _, m := range t.media() {
			body, err := io.ReadAll(m.Reader())
			if err != nil {
				return nil, err
			}
			// Behind what all media of a kind have in common, in the middle, and at the end.
			for _, at := range []int{60, len(body) / 2 / 3 * 3, len(body)/3*3 - slice} {
				part := body[at : at+slice]
				what := fmt.Sprintf("%s of %s", m.Field, t.Token)
				s.add(what, part)
				s.add(what+" in base64", []byte(base64.StdEncoding.EncodeToString(part)))
			}
		}
	}
	return s, nil
}

// scan reads everything and calls found for each needle.
func (s *scanner) scan(r io.Reader, found func(needle)) error {
	buffer := make([]byte, 0, scanBuffer+longestNeedle)
	for {
		n, err := io.ReadFull(r, buffer[len(buffer):scanBuffer+longestNeedle])
		buffer = buffer[:len(buffer)+n]
		s.bytes += int64(n)
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		end := len(buffer) - longestNeedle // what begins behind it is looked at with what follows
		if last {
			end = len(buffer) - head + 1
		}
		s.search(buffer, max(0, end), found)
		if last {
			return nil
		}
		buffer = buffer[:copy(buffer, buffer[end:])]
	}
}

// search looks at the first places of a buffer. It is the one loop over every byte,
// and too slow if the race detector looks at each; all it touches is one goroutine's.
//
//go:norace
func (s *scanner) search(buffer []byte, places int, found func(needle)) {
	for i := range places {
		v := binary.LittleEndian.Uint64(buffer[i:])
		if word, bit := spread(v); s.maybe[word]&bit == 0 {
			continue
		}
		for _, n := range s.byHead[v] {
			if bytes.HasPrefix(buffer[i:], n.text) {
				found(n)
			}
		}
	}
}

// readable is one finding.
type readable struct{ place, what string }

// folder scans all files below a folder.
func (s *scanner) folder(root string, found func(readable)) error {
	files := os.DirFS(root)
	return fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := files.Open(name)
		if err != nil {
			return err
		}
		s.files++
		place := filepath.Join(root, name)
		return errors.Join(s.scan(f, func(n needle) { found(readable{place, n.what}) }), f.Close())
	})
}

// bucket scans all objects of a bucket, with their names and headers.
func (s *scanner) bucket(cos *costest.Server, name string, found func(readable)) error {
	for _, o := range cos.Objects(name) {
		body, _ := cos.Body(name, o.Key)
		s.files++
		text := io.MultiReader(strings.NewReader(fmt.Sprintf("%s %v\n", o.Key, o.Header)), bytes.NewReader(body))
		if err := s.scan(text, func(n needle) { found(readable{"cos://" + name + "/" + o.Key, n.what}) }); err != nil {
			return err
		}
	}
	return nil
}

// scanned is what a scan of everything found.
type scanned struct {
	readable []readable
	files    int
	bytes    int64
	// controls of planted texts were found, which proves that the scan sees what
	// is there.
	planted, controls int
}

// scanAll searches everything that the run has left on disk, and the archive
// bucket. Servers and workers have ended.
func (s *site) scanAll() (scanned, error) {
	var sum scanned
	search, err := needlesOf(s.tokens)
	if err != nil {
		return sum, err
	}
	roots := []string{s.logs, filepath.Join(s.folder, "nats"), s.disk.path, s.postgres.Folder()}
	for _, w := range s.workers {
		roots = append(roots, w.data)
	}
	controls, err := s.plant(roots)
	if err != nil {
		return sum, err
	}
	found := func(r readable) {
		if slices.Contains(controls, r.place) {
			sum.controls++
			return
		}
		sum.readable = append(sum.readable, r)
	}
	for _, root := range roots {
		if err := search.folder(root, found); err != nil {
			return sum, err
		}
	}
	for _, name := range controls {
		if err := os.Remove(name); err != nil {
			return sum, err
		}
	}
	sum.planted = len(controls) * len(s.control())
	err = search.bucket(s.standIns.cos, archiveBucket, found)
	sum.files, sum.bytes = search.files, search.bytes
	return sum, err
}

// plant writes a file with readable texts into each folder, which must be found.
func (s *site) plant(roots []string) ([]string, error) {
	var names []string
	for _, root := range roots {
		name := filepath.Join(root, "control")
		padding := bytes.Repeat([]byte("."), scanBuffer-5) // so that one lies across two reads
		if err := os.WriteFile(name, append(padding, bytes.Join(s.control(), []byte("|"))...), 0o600); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// control are texts that the scan must find once each.
func (s *site) control() [][]byte {
	t := s.tokens[len(s.tokens)-1]
	list := [][]byte{[]byte(t.Person.Name), []byte(base64.StdEncoding.EncodeToString([]byte("x" + t.Person.Address)))}
	for _, m := range t.media() {
		body, err := io.ReadAll(m.Reader())
		if err == nil {
			list = append(list, body[60:60+slice])
		}
	}
	return list
}
