//go:build linux

// Command chaos tests what faceid-ingest promises: nothing is lost, nothing is
// doubled, nothing personal is left readable, whatever breaks.
//
// It runs real processes: the built binary several times, nats-server, PostgreSQL.
// FaceID, COS and a webhook receiver are stand-ins inside this process. While it
// publishes events it kills, freezes and restarts processes, cuts and stalls
// connections, fills a disk, and has services fail. When all faults are over and
// everything is drained, it compares each sink with what the stand-ins issued, byte
// for byte, and searches everything on disk for what must not be readable there.
//
// Everything that is left to chance comes from one seed, so that a run can be
// repeated; -v prints the schedule as it happens. How the processes' own threads
// interleave is, of course, never the same twice.
//
// Linux only: it mounts a small disk, for which it is root or makes a namespace.
// It exits with 1 if anything was lost, doubled, wrong or readable.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// options are the command line.
type options struct {
	Tokens  int           `default:"2000" help:"How many tokens to issue."`
	Workers int           `default:"3" help:"How many daemons share the work."`
	Kill    time.Duration `default:"2s" help:"A daemon is killed each time so long has passed."`
	Seed    int64         `default:"1" help:"Seed of all chance."`
	Cluster bool          `help:"Run a JetStream cluster of three nodes, and kill the one that leads."`
	Short   bool          `help:"A small form: at most 120 tokens, faults that come faster and last shorter."`
	Limit   time.Duration `default:"20m" help:"How long everything may take to drain once the faults are over."`
	Binary  string        `type:"existingfile" placeholder:"FILE" help:"The faceid-ingest to test; left out, it is built."`
	Keep    bool          `help:"Keep the folder of the run, with logs and configurations, for somebody to look at."`
	JSON    bool          `help:"Print the figures as JSON."`
	Verbose bool          `short:"v" help:"Print each fault as it happens."`
}

// validate says what is wrong with the options.
func (o *options) validate() error {
	if o.Tokens < 1 || o.Workers < 1 || o.Kill < 100*time.Millisecond {
		return errors.New("it takes at least one token and one worker, and a tenth of a second between kills")
	}
	if o.Short {
		o.Tokens = min(o.Tokens, shortTokens)
	}
	return nil
}

const shortTokens = 120

func main() {
	if code, done := ownNamespace(); done {
		os.Exit(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	var o options
	kong.Parse(&o, kong.Name("chaos"), kong.Description("Tests that faceid-ingest loses nothing and doubles nothing, whatever breaks."))
	r, err := run(ctx, o, os.Stderr)
	if r != nil {
		err = errors.Join(err, r.print(os.Stdout, o.JSON))
	}
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func discardLog() *stdlog.Logger { return stdlog.New(io.Discard, "", 0) }
