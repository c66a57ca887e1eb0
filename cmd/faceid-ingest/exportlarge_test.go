//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"github.com/faceid-ingest/faceid-ingest/pipeline/faceid/faceidtest"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos/costest"
)

// newCOS starts a COS with an archive bucket and FaceID's bucket.
func newCOS(t *testing.T) *costest.Server {
	t.Helper()
	server, err := costest.Start(context.WithoutCancel(t.Context()), costest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	server.AddCredential(costest.Credential{SecretID: "AKID-cos", SecretKey: "cos-key"})
	server.CreateBucket(archiveBucket, "ap-guangzhou", costest.BucketOptions{})
	server.CreateBucket(faceidBucket, "ap-guangzhou", costest.BucketOptions{})
	return server
}

// cosSink is a line of the configuration.
func cosSink(server *costest.Server, settings string) string {
	return fmt.Sprintf("  - {name: evidence, type: cos, bucket: %s, region: ap-guangzhou, secret_id: AKID-cos, secret_key: cos-key, endpoint: %q, %s}\n", archiveBucket, server.URL(), settings)
}

// TestExportLarge exports a sealed video of 200 MiB from a folder and from COS, in
// clear and encrypted, and asks the kernel for the most memory that the process had.
func TestExportLarge(t *testing.T) {
	t.Parallel()
	s := newSite(t, "worker: {", "worker: {max_response: 512MiB, ", "type: dir,", "type: dir, seal: true,")
	_, media, _ := strings.Cut(read(t, s.config), "sinks:\n")
	media = media[:strings.IndexByte(media, '\n')+1]
	evidence := cosSink(newCOS(t), "mode: pull, seal: true")
	both := strings.Replace(read(t, s.config), media, media+evidence, 1)
	s.write("config.yaml", both)

	c := faceidtest.NewCheck(0, 1<<10)
	video := faceidtest.Medium{Field: "VideoData.LivenessVideo", Kind: result.Video, Size: 200 << 20, Seed: 1, Form: faceidtest.Base64}
	c.Media = append(c.Media[:2:2], video)
	s.publish([]faceidtest.Check{c})
	p := s.start()
	until(t, "the event is settled", func() bool { return s.open() == 0 })
	p.stop()
	want := sha256.New()
	if _, err := io.Copy(want, video.Reader()); err != nil {
		t.Fatal(err)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}

	for from, other := range map[string]string{"media": evidence, "evidence": media} {
		s.write("config.yaml", strings.Replace(both, other, "", 1))
		for _, form := range []string{"clear", "age"} {
			t.Run(from+" "+form, func(t *testing.T) {
				to := s.path(from + "-" + form)
				path := filepath.Join(to, "enhanced-"+result.TokenHash(c.Product, c.Token))
				args := []string{"export", c.Token, "--to", to, "--reason", "case 9", "--json"}
				if form == "age" {
					path += ".tar.age"
					args = append(args, "--recipient", identity.Recipient().String())
				}

				peak := s.measure(t, path, args...)
				t.Logf("peak memory: %d MiB", peak>>20)
				if peak > 64<<20 {
					t.Errorf("the process took up to %d MiB", peak>>20)
				}
				got := sha256.New()
				if form == "age" {
					copyFromTar(t, got, path, identity, video.Field)
				} else {
					copyFile(t, got, filepath.Join(path, video.Field+".mp4"))
				}
				if !bytes.Equal(got.Sum(nil), want.Sum(nil)) {
					t.Error("the video has other bytes")
				}
				if err := os.RemoveAll(to); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// measure runs a command that makes path and then prints a line, and returns the most
// memory that it had. What it prints it prints into a pipe that is full: it waits
// there until it was looked at.
func (s *site) measure(t *testing.T, path string, args ...string) (peak int64) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	size, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	if err == nil {
		_, err = writer.Write(make([]byte, size))
	}
	if err != nil {
		t.Fatal(err)
	}

	var stderr bytes.Buffer
	cmd := exec.Command(binary, append([]string{"--config", s.config}, args...)...)
	cmd.Stdout, cmd.Stderr = writer, &stderr
	if err := errors.Join(cmd.Start(), writer.Close()); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	until(t, "the export is there", func() bool {
		select {
		case err := <-ended:
			t.Fatalf("%v\n%s", err, &stderr)
		default:
		}
		_, err := os.Lstat(path)
		return err == nil
	})
	peak = peakMemory(t, cmd.Process.Pid)

	_, readErr := io.Copy(io.Discard, reader)
	if err := errors.Join(<-ended, readErr, reader.Close()); err != nil {
		t.Errorf("%v\n%s", err, &stderr)
	}
	return peak
}

func copyFile(t *testing.T, to io.Writer, name string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(to, file)
	if err := errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

// copyFromTar copies the file of a field from an encrypted export.
func copyFromTar(t *testing.T, to io.Writer, name string, identity age.Identity, field string) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }() // only read
	opened, err := age.Decrypt(file, identity)
	if err != nil {
		t.Fatal(err)
	}
	for archive := tar.NewReader(opened); ; {
		header, err := archive.Next()
		if err != nil {
			t.Fatalf("no %s: %v", field, err)
		}
		if strings.Contains(header.Name, "/"+field+".") {
			if _, err := io.Copy(to, archive); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// Media that FaceID put into its bucket, and that were copied there, pulled or left,
// comes out of an export like all other, sealed or not.
func TestExportFromCOS(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{"copied": "mode: copy", "pulled": "mode: pull, seal: true", "left": "mode: reference"} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			server := newCOS(t)
			before, rest, _ := strings.Cut(read(t, s.config), "  - {name: media")
			_, after, _ := strings.Cut(rest, "\n")
			s.write("config.yaml", before+cosSink(server, settings)+after)

			c := faceidtest.NewCheck(1, 8<<10)
			media := map[string][]byte{}
			for _, m := range c.Media {
				text, err := io.ReadAll(m.Reader())
				if err != nil {
					t.Fatal(err)
				}
				if media[m.Field] = text; m.Form.InCOS() {
					server.Put(faceidBucket, m.Key(), "application/octet-stream", text)
				}
			}
			s.publish([]faceidtest.Check{c})
			p := s.start()
			until(t, "the event is settled", func() bool { return s.open() == 0 })
			p.stop()

			stdout, _ := s.command(exitDone, "export", c.Token, "--to", s.path("out"), "--reason", "case 9", "--json")
			m, files := exportOf(t, exportLines(t, stdout)[0].Path)
			if !m.Complete || len(files) != 1+len(media) {
				t.Errorf("%+v", m)
			}
			for field, want := range media {
				if !bytes.Equal(files[field], want) {
					t.Errorf("%s: %d bytes, want %d", field, len(files[field]), len(want))
				}
			}
		})
	}
}

// On a terminal an export shows how far it is, and of nobody whom it is about.
func TestExportOnTerminal(t *testing.T) {
	t.Parallel()
	s, checks := stockedSite(t)
	tty, _, seen := terminal(t)
	args := []string{"--config", s.config, "export", checks[0].Token, checks[1].Token, "--to", s.path("out"), "--reason", "case 9"}
	if code := run(t.Context(), args, tty, io.Discard, tty); code != exitDone {
		t.Fatalf("exit code %d\n%s", code, seen)
	}
	until(t, "the bar is seen", func() bool { return strings.Contains(seen.String(), "exporting 2/2") })
	if text := seen.String(); strings.Contains(text, checks[0].Person.Name) || strings.Contains(text, checks[0].Person.IDCard) {
		t.Errorf("%s", text)
	}
}
