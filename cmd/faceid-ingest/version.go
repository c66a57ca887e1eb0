package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version, commit and date are set by the linker (see Makefile); a binary built
// otherwise says what the Go toolchain knows.
var (
	version = "dev"
	commit  = ""
	date    = ""
)

type versionCmd struct {
	JSON bool `help:"Print JSON."`
}

// build describes this binary.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Date    string `json:"date,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func thisBuild() build {
	b := build{Version: version, Commit: commit, Date: date, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision" && b.Commit == "":
			b.Commit = setting.Value
		case setting.Key == "vcs.time" && b.Date == "":
			b.Date = setting.Value
		}
	}
	return b
}

// String returns the build in one line, for people.
func (b build) String() string {
	from := ""
	if b.Commit != "" {
		from = fmt.Sprintf(" (%.12s, %s)", b.Commit, b.Date)
	}
	return fmt.Sprintf("faceid-ingest %s%s %s %s/%s", b.Version, from, b.Go, b.OS, b.Arch)
}

func (c *versionCmd) Run(a *app) error {
	b := thisBuild()
	if c.JSON {
		return json.NewEncoder(a.stdout).Encode(b)
	}
	_, err := fmt.Fprintln(a.stdout, b)
	return err
}
