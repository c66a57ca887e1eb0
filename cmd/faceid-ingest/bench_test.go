package main

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"
)

// BenchmarkDaemon runs the real daemon over small results, of which the metrics cost the
// largest part, while its metrics are read every second. It reports results per second,
// and what part of the process's CPU goes into counting and into being read.
func BenchmarkDaemon(b *testing.B) {
	const results, seconds = 3000, "12"
	s := newSite(b, "admin: 127.0.0.1:0", "admin: 127.0.0.1:0, pprof: true", "level: debug", "level: info")
	for b.Loop() {
		p := s.start()
		ctx, cancel := context.WithCancel(b.Context())
		var around sync.WaitGroup
		var profile string
		around.Go(func() { _, profile = p.admin("/debug/pprof/profile?seconds=" + seconds) })
		around.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					p.admin("/metrics")
				case <-ctx.Done():
					return
				}
			}
		})
		began := time.Now()
		s.publish(newChecks(results, 8<<10))
		until(b, "all are settled", func() bool { return s.open() == 0 })
		b.ReportMetric(results/time.Since(began).Seconds(), "results/s")
		cancel()
		around.Wait()
		p.stop()
		b.ReportMetric(shareOf(b, profile, `telemetry\.\(\*Metrics\)|client_golang|promhttp`), "metrics-%cpu")
	}
}

var accounting = regexp.MustCompile(`accounting for \S+, ([0-9.]+)% of (\S+) total`)

// shareOf returns what part of a CPU profile, in percent, is in functions that match,
// or below them.
func shareOf(b *testing.B, profile, functions string) float64 {
	b.Helper()
	file := b.TempDir() + "/cpu.pprof"
	if err := os.WriteFile(file, []byte(profile), 0o600); err != nil {
		b.Fatal(err)
	}
	out, err := exec.Command("go", "tool", "pprof", "-top", "-nodecount=5", "-focus="+functions, file).CombinedOutput()
	found := accounting.FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("pprof: %v\n%s", err, out)
	}
	share, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%.2f%% of %s of CPU", share, found[2])
	return share
}
