package telemetry

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
)

// TakeOver has l tell, in place of the standard library's logger and OpenTelemetry's,
// that a library printed something: net/http prints the beginning of what a server sent
// unasked, and so a person's data. What it was is not told, and one kind once a minute.
// The latest call counts, for the whole process.
func TakeOver(l *slog.Logger) {
	p := &printed{log: l, kinds: map[string]*kind{}}
	log.SetFlags(0)
	log.SetPrefix("")
	log.SetOutput(p) //nolint:forbidigo // It is what keeps libraries from printing.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { p.note("OpenTelemetry", len(err.Error())) }))
	otel.SetLogger(logr.Discard())
}

// printedQuiet is how long what a library goes on printing is not mentioned again.
const printedQuiet = time.Minute

// printed is where libraries print to.
type printed struct {
	log *slog.Logger

	mu    sync.Mutex
	kinds map[string]*kind
}

type kind struct {
	last     time.Time
	silenced int
}

// strangers is about whoever knocks at the admin endpoint, which is of little interest.
const strangers = "http: TLS handshake error"

// knownBeginnings are beginnings of lines that say what happened, and nothing more.
var knownBeginnings = []string{
	"Unsolicited response received on idle HTTP channel",
	strangers,
	"http: panic serving",
	"http: ", "http2: ", "net/http: ",
}

// Write is called with one line at a time.
func (p *printed) Write(line []byte) (int, error) {
	for _, beginning := range knownBeginnings {
		if strings.HasPrefix(string(line), beginning) {
			p.note(beginning, len(line))
			return len(line), nil
		}
	}
	p.note("other", len(line))
	return len(line), nil
}

// note tells that n bytes of a kind were printed.
func (p *printed) note(name string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	known := p.kinds[name]
	if known != nil && now.Sub(known.last) < printedQuiet {
		known.silenced++
		return
	}
	attrs := []any{"about", name, "bytes", n}
	if known != nil && known.silenced > 0 {
		attrs = append(attrs, "repeated", known.silenced)
	}
	p.kinds[name] = &kind{last: now}
	level := slog.LevelWarn
	if name == strangers {
		level = slog.LevelDebug
	}
	p.log.Log(context.Background(), level, "a library printed something that is not shown, for it may quote what was sent", attrs...)
}
