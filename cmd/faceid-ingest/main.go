// Command faceid-ingest stores the results of Tencent Cloud FaceID checks
// before Tencent deletes them. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/faceid-ingest/faceid-ingest/config"
)

// cli is the command line.
type cli struct {
	Config string `short:"c" type:"path" predictor:"file" placeholder:"FILE" env:"FACEID_INGEST_CONFIG" help:"Configuration file. Without one it is /etc/faceid-ingest/config.yaml, if that is there, or else the embedded default: NATS in this process, results under ./data."`

	ShowVersion kong.VersionFlag `name:"version" help:"Print the version."`

	Run     runCmd     `cmd:"" help:"Run the daemon: ingest results as their checks are completed."`
	Demo    demoCmd    `cmd:"" help:"Show the whole way of a result on this machine, with nothing configured."`
	Publish publishCmd `cmd:"" help:"Publish completion events for tokens."`
	Status  statusCmd  `cmd:"" help:"Show what is waiting, in work and given up."`
	Where   whereCmd   `cmd:"" help:"Say where a token is: waiting, in work, parked, given up, stored or erased."`
	Dead    deadCmd    `cmd:"" help:"Look at dead letters: events that were given up."`
	List    listCmd    `cmd:"" help:"List stored results."`
	Show    showCmd    `cmd:"" help:"Show one stored result."`
	Export  exportCmd  `cmd:"" help:"Export stored results with their pictures and videos, in clear or encrypted for somebody."`
	Verify  verifyCmd  `cmd:"" help:"Read stored results again and compare them with their digests and with each other."`
	Erase   eraseCmd   `cmd:"" help:"Erase what is stored of tokens, so that it does not come back."`
	Keys    keysCmd    `cmd:"" help:"Manage the keyring that seals personal data."`
	Conf    configCmd  `cmd:"" name:"config" help:"Check a configuration, or print an example or the schema of one."`
	Codes   codesCmd   `cmd:"" help:"Explain result codes and the API's error codes."`
	Man     manCmd     `cmd:"" help:"Print the manual page."`
	Version versionCmd `cmd:"" help:"Print the version."`
	Help    helpCmd    `cmd:"" help:"Show the help of a command."`

	Completion completionCmd `cmd:"" help:"Print what makes a shell complete commands and flags."`
}

// app is what commands share: where to print, and the configuration file.
type app struct {
	stdout, stderr io.Writer
	stdin          io.Reader
	// configFile is empty for the embedded default.
	configFile string
	// unnamed says that nobody named the file; once guards finding it.
	unnamed bool
	once    sync.Once
}

// loadConfig reads the configuration for a command that may write to what it names
// on this machine, which is refused if that is somebody else's.
func (a *app) loadConfig() (*config.Config, error) {
	cfg, err := a.readConfig()
	if err != nil {
		return nil, err
	}

	return cfg, refuseForeign(cfg)
}

// systemConfig is the configuration of a machine, which is used where none is named.
var systemConfig = "/etc/faceid-ingest/config.yaml"

// findConfig takes the configuration of the machine where none is named.
func (a *app) findConfig() {
	if a.configFile != "" {
		return
	}
	// One that cannot be looked at is there as well: its error is better than another
	// configuration.
	if _, err := os.Stat(systemConfig); !errors.Is(err, fs.ErrNotExist) {
		a.configFile = systemConfig
	}
	a.unnamed = true
}

// configName names the configuration that is used.
func (a *app) configName() string {
	if a.configFile == "" {
		return "embedded default"
	}
	return a.configFile
}

// loadWhole reads the configuration for "run" and "config check", which need all of it
// and say themselves which it is.
func (a *app) loadWhole() (*config.Config, error) {
	a.once.Do(a.findConfig)
	return a.loadBy(config.Load)
}

// readConfig reads the configuration for a command that uses parts of it only: a variable
// that is not set is told of where it is needed. It is enough for commands that open
// nothing, or NATS alone. One that was not named is told.
func (a *app) readConfig() (*config.Config, error) {
	a.once.Do(func() {
		if a.findConfig(); a.unnamed {
			_, _ = fmt.Fprintf(a.stderr, "configuration: %s\n", a.configName())
		}
	})
	return a.loadBy(config.LoadParts)
}

// loadBy takes the embedded default where there is no file.
func (a *app) loadBy(load func(path string) (*config.Config, error)) (*config.Config, error) {
	if a.configFile == "" {
		return config.Default(), nil
	}
	return load(a.configFile)
}

func main() {
	keepQuiet(os.Stderr)

	// The first signal asks the command to finish; a second one ends it at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], input{ctx, os.Stdin}, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// input ends when ctx does, so that a command which waits for somebody to type, or
// for another program, is stopped by the first signal.
type input struct {
	ctx  context.Context //nolint:containedctx // it bounds the process, and readers take none
	file *os.File
}

// Fd is how a terminal is known.
func (i input) Fd() uintptr { return i.file.Fd() }

func (i input) Read(p []byte) (int, error) {
	type read struct {
		n   int
		err error
	}
	buffer, done := make([]byte, len(p)), make(chan read, 1)
	// A read that nothing comes for ends with the process.
	go func() {
		n, err := i.file.Read(buffer)
		done <- read{n, err}
	}()

	select {
	case r := <-done:
		return copy(p, buffer[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}

// newParser returns the command line's parser, with an example in the help of every
// command. It calls exit where it has printed what was asked for.
func newParser(c *cli, stdout, stderr io.Writer, exit func(int)) (*kong.Kong, error) {
	parser, err := kong.New(c,
		kong.Name("faceid-ingest"),
		kong.Description("Stores Tencent Cloud FaceID (人脸核身) results before they are deleted, three days after the check."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"version": thisBuild().String()},
		kong.Writers(stdout, stderr),
		kong.Exit(exit),
	)
	if err != nil {
		return nil, err
	}

	addExamples(parser.Model.Node)
	return parser, nil
}

// run parses and runs one command line and returns its exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var c cli
	code := exitDone
	exited := false
	parser, err := newParser(&c, stdout, stderr, func(n int) { code, exited = n, true })
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "faceid-ingest:", err)
		return exitFailed
	}

	// A shell that asks how to go on is answered, and nothing else is done.
	completeLine(parser)
	if exited {
		return code
	}

	command, err := parser.Parse(args)
	if exited {
		return code
	}
	if err != nil {
		return usageCode(parser, err, stderr)
	}

	a := &app{stdout: stdout, stderr: stderr, stdin: stdin, configFile: c.Config}
	command.BindTo(ctx, (*context.Context)(nil))

	return exitCode(ctx, guarded(stderr, func() error { return command.Run(a) }), stderr)
}
