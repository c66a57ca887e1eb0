package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/faceid-ingest/faceid-ingest/pipeline/telemetry"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire"
	"github.com/faceid-ingest/faceid-ingest/pipeline/wire/wiretest"
)

const marked = "马克测试"

// What a client of a server that echoes can print of it holds nothing of what it was told.
func TestTransportQuotesNothing(t *testing.T) {
	var log bytes.Buffer
	telemetry.TakeOver(slog.New(slog.NewTextHandler(&log, nil)))
	for _, trick := range wiretest.Tricks() {
		t.Run(trick.Name, func(t *testing.T) {
			s := wiretest.Start(t, []string{marked}, func(*http.Request) string { return "client" }, trick)
			transport := wire.Transport{Base: &http.Transport{}}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 2 * time.Second}
			response, err := client.Post(s.URL(), "text/plain", strings.NewReader(marked))
			said := fmt.Sprint(err)
			if err == nil {
				_, err = io.ReadAll(response.Body)
				said = fmt.Sprint(response.Status, response.Header["Location"], err, response.Body.Close())
			}
			for _, form := range wiretest.Forms(marked) {
				if strings.Contains(said, form) {
					t.Errorf("holds %q: %s", form, said)
				}
			}
		})
	}
	for _, form := range wiretest.Forms(marked) {
		if strings.Contains(log.String(), form) {
			t.Errorf("the log holds %q: %s", form, &log)
		}
	}
}

// Classes and hints are made of what an error is.
func TestClosedKeepsWhatAnErrorIs(t *testing.T) {
	_, err := net.Dial("tcp", "127.0.0.1:1")
	closed := wire.Closed(fmt.Errorf("%s: %w", marked, err))
	var network *net.OpError
	if !errors.Is(closed, syscall.ECONNREFUSED) || !errors.As(closed, &network) || closed.Error() != "dial tcp 127.0.0.1:1: connection refused" {
		t.Errorf("%v", closed)
	}
	var timeout net.Error
	if slow := wire.Closed(fmt.Errorf("%s: %w", marked, os.ErrDeadlineExceeded)); slow.Error() != "timeout" || !errors.As(slow, &timeout) || !timeout.Timeout() {
		t.Errorf("%v", slow)
	}
	if wire.Closed(io.EOF) != io.EOF || wire.Closed(nil) != nil { //nolint:errorlint // It is about identity.
		t.Error("readers compare io.EOF by identity")
	}
	if strings.Contains(wire.Closed(errors.New(marked)).Error(), marked) {
		t.Error("an unknown error is quoted")
	}
}
