package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	mangokong "github.com/alecthomas/mango-kong"
	"github.com/muesli/roff"
)

type manCmd struct{}

// Run prints the page with the date of the program in place of today's, so that a
// release can be built again to the byte.
func (*manCmd) Run(a *app, parsed *kong.Context) error {
	page := mangokong.NewManPage(1, parsed.Model).Build(roff.NewDocument())
	date, _, _ := strings.Cut(thisBuild().Date, "T")
	_, err := fmt.Fprint(a.stdout, strings.Replace(page, time.Now().Format(time.DateOnly), date, 1))
	return err
}
