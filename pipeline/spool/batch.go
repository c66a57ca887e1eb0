package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
)

// ErrClosed is returned by what belongs to a batch that was closed.
var ErrClosed = errors.New("the media was released")

// ErrFull is wrapped by the error for a wait for room that was ended by its
// context: the quota is used up by results that sinks have not taken yet.
var ErrFull = errors.New("no room in the spool (spool.quota)")

// memoryItems is how many items of the full memory limit a batch may have in
// memory; what comes then goes to files. It keeps an answer of very many items
// from taking all memory.
const memoryItems = 8

// Batch holds the media of one result. One goroutine writes it; its items may
// then be read by many.
type Batch struct {
	spool *Spool
	age   uint64

	mu     sync.Mutex
	files  []*sealedFile
	bytes  int64
	closed bool
	// memory is how many of the bytes are in memory; only the writer uses it.
	memory int64
}

// Close removes all items, those half written too. Readers that are open fail
// from then on. Calling it again does nothing.
func (b *Batch) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	files, size := b.files, b.bytes
	b.files, b.bytes = nil, 0
	b.mu.Unlock()
	var errs []error
	for _, file := range files {
		errs = append(errs, file.remove())
	}
	b.spool.free(size, b)
	return errors.Join(errs...)
}

// crcTable is the polynomial of x-cos-hash-crc64ecma.
var crcTable = crc64.MakeTable(crc64.ECMA)

// Create starts a new item; ctx bounds its waits for room. What is not finished
// is not an item, and is removed with the batch.
func (b *Batch) Create(ctx context.Context) *Writer {
	return &Writer{ctx: ctx, batch: b, sha: sha256.New(), crc: crc64.New(crcTable)}
}

// Writer takes the bytes of one item.
type Writer struct {
	//nolint:containedctx // io.Writer has no room for a context; a Writer lives within one call.
	ctx   context.Context
	batch *Batch
	sha   hash.Hash
	crc   hash.Hash64
	size  int64
	head  []byte
	// memory holds the item until it exceeds the limit; then file does.
	memory bytes.Buffer
	file   *sealedFile
	err    error
}

// Write takes bytes. It waits while the quota is used up.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.write(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

func (w *Writer) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := w.reserve(int64(len(p))); err != nil {
		return err
	}
	_, _ = w.sha.Write(p)
	_, _ = w.crc.Write(p)
	w.size += int64(len(p))
	if room := sniffLength - len(w.head); room > 0 {
		w.head = append(w.head, p[:min(room, len(p))]...)
	}
	if limit := w.batch.spool.cfg.MemoryLimit; w.file == nil && w.size <= limit && w.batch.memory+int64(len(p)) <= memoryItems*limit {
		w.batch.memory += int64(len(p))
		_, _ = w.memory.Write(p)
		return nil
	}
	if w.file == nil {
		file, err := w.batch.createFile()
		if err != nil {
			return err
		}
		w.file = file
		if err := file.write(w.memory.Bytes()); err != nil {
			return err
		}
		w.batch.memory -= int64(w.memory.Len())
		w.memory = bytes.Buffer{}
	}
	return w.file.write(p)
}

// reserve accounts for n more bytes of the batch.
func (w *Writer) reserve(n int64) error {
	b := w.batch
	if err := b.spool.reserve(w.ctx, b, n); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		b.spool.free(n, nil)
		return ErrClosed
	}
	b.bytes += n
	return nil
}

// Finish ends the item and adds it to the batch.
func (w *Writer) Finish() (*Item, error) {
	if w.err == nil && w.file != nil {
		w.err = w.file.finish()
	}
	if w.err != nil {
		return nil, w.err
	}
	w.err = errors.New("the item is finished")
	item := &Item{batch: w.batch, memory: w.memory.Bytes(), file: w.file, contentType: sniff(w.head)}
	item.digest.Size = w.size
	item.digest.CRC64 = w.crc.Sum64()
	w.sha.Sum(item.digest.SHA256[:0])
	return item, nil
}

// Item is one medium. Its methods may be called concurrently.
type Item struct {
	batch       *Batch
	digest      result.Digest
	contentType string
	memory      []byte
	file        *sealedFile
}

var _ result.Content = (*Item)(nil)

// Digest describes the item's bytes.
func (i *Item) Digest() result.Digest { return i.digest }

// ContentType returns the media type that the first bytes show.
func (i *Item) ContentType() string { return i.contentType }

// Kind returns what the content type is: image, video, audio or unknown.
func (i *Item) Kind() result.Kind { return kindOf(i.contentType) }

// Open returns a reader of the item from its first byte.
func (i *Item) Open() (io.ReadSeekCloser, error) {
	if i.released() {
		return nil, ErrClosed
	}
	if i.file != nil {
		return i.file.open(i)
	}
	return &memoryReader{item: i, Reader: bytes.NewReader(i.memory)}, nil
}

func (i *Item) released() bool {
	i.batch.mu.Lock()
	defer i.batch.mu.Unlock()
	return i.batch.closed
}

// memoryReader reads an item that is in memory.
type memoryReader struct {
	*bytes.Reader
	item *Item
}

func (r *memoryReader) Read(p []byte) (int, error) {
	if r.item.released() {
		return 0, ErrClosed
	}
	return r.Reader.Read(p)
}

func (r *memoryReader) Close() error { return nil }

// createFile opens the next file of this process; the batch owns it.
func (b *Batch) createFile() (*sealedFile, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	s := b.spool
	id := s.files.Add(1)
	path := filepath.Join(s.cfg.Dir, fmt.Sprintf("%s-%d%s", s.instance, id, fileSuffix))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create a spool file: %w", err)
	}
	sealed := &sealedFile{aead: s.aead, id: id, file: file, plain: make([]byte, 0, chunkSize)}
	b.files = append(b.files, sealed)
	return sealed, nil
}
