package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/faceid-ingest/faceid-ingest/config"
	"github.com/faceid-ingest/faceid-ingest/pipeline/result"
	"github.com/faceid-ingest/faceid-ingest/sinks"
	"github.com/faceid-ingest/faceid-ingest/sinks/cos"
	"github.com/faceid-ingest/faceid-ingest/sinks/dir"
)

// The codes of warnings.
const (
	warnKeyring  = "keyring_beside_data"
	warnUnsealed = "media_unsealed"
	warnClear    = "clear_transport"
	warnExposed  = "file_exposed"
)

// warning is something that works, and that lets personal data or secrets be lost to
// somebody else.
type warning struct {
	// code is one of those above.
	code string
	// detail says what, where, and what to do about it.
	detail string
}

// warningsOf returns all that is to be warned of. configFile may be empty.
func warningsOf(cfg *config.Config, configFile string) []warning {
	return slices.Concat(keyringWarnings(cfg), sealWarnings(cfg), clearWarnings(cfg), exposedFiles(cfg, configFile))
}

// logWarnings tells the log, at the start of a daemon.
func logWarnings(log *slog.Logger, list []warning) {
	for _, w := range list {
		log.Warn(w.detail, "warning", w.code)
	}
}

// keyringWarnings: whoever takes the data takes the keys along.
func keyringWarnings(cfg *config.Config) []warning {
	file := keyringFile(cfg)
	if cfg.Privacy.KMS.KeyID != "" || !inside(cfg.DataDir, file) {
		return nil
	}
	return []warning{{warnKeyring, fmt.Sprintf("the keyring %s is kept in clear beside the data that it seals: who copies data_dir can open it; set privacy.keyring_file to another volume, or privacy.kms", file)}}
}

// inside reports whether a path is in a folder.
func inside(folder, path string) bool {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return false
	}
	if path, err = filepath.Abs(path); err != nil {
		return false
	}
	name, err := filepath.Rel(folder, path)
	return err == nil && filepath.IsLocal(name)
}

func sealWarnings(cfg *config.Config) []warning {
	stores := slices.ContainsFunc(cfg.Accounts, func(a config.Account) bool { return a.Storage.Bucket != "" })
	var list []warning
	for _, s := range cfg.Sinks {
		sealed, copies := true, false
		switch c := s.Config.(type) {
		case *dir.Config:
			sealed = c.Seal
		case *cos.Config:
			sealed, copies = c.Seal, c.Mode == "copy" && stores
		}
		switch {
		case !sealed:
			list = append(list, warning{warnUnsealed, fmt.Sprintf("sink %s stores pictures, videos and sounds unsealed (seal: false): who gets at its disk or bucket sees faces and identity cards", s.Name)})
		case copies:
			list = append(list, warning{warnUnsealed, fmt.Sprintf("sink %s copies what FaceID put into COS as it is, unsealed: mode: pull seals it", s.Name)})
		}
	}
	return list
}

func clearWarnings(cfg *config.Config) []warning {
	var list []warning
	note := func(what, way string, hosts []string) {
		for _, host := range hosts {
			list = append(list, warning{warnClear, fmt.Sprintf("%s sends secrets or results to %s in clear: %s", what, host, way)})
		}
	}
	if cfg.NATS.User != "" && cfg.NATS.TLS == (config.TLS{}) {
		note("nats", "use tls:// in nats.url, or set nats.tls", sinks.NATSInClear(cfg.NATS.URL))
	}
	for _, s := range cfg.Sinks {
		if c, ok := s.Config.(sinks.ClearSender); ok {
			note("sink "+s.Name, "have it use TLS (see its keys url and tls)", c.InClear())
		}
	}
	return list
}

// exposedFiles are those that others than their owner may read, write or own.
func exposedFiles(cfg *config.Config, configFile string) []warning {
	var list []warning
	told := map[string]bool{}
	note := func(what, path string, bits fs.FileMode) {
		if told[path] {
			return
		}
		told[path] = true
		if problem := exposure(path, bits); problem != "" {
			list = append(list, warning{warnExposed, fmt.Sprintf("%s %s %s", what, path, problem)})
		}
	}

	for _, place := range localPlaces(cfg) {
		note(place.what, place.path, 0o006)
	}
	for _, s := range cfg.Sinks {
		if c, ok := s.Config.(*dir.Config); ok {
			for _, p := range result.Products() {
				note("the archive of sink "+s.Name, filepath.Join(c.Path, string(p)), 0o006)
			}
		}
	}

	found := secretsOf(cfg)
	for _, path := range found.files {
		// What a container runtime mounts there, only the container sees.
		if !inside("/run/secrets", path) {
			note("the secret", path, 0o006)
		}
	}
	if configFile != "" {
		if found.inline(configFile) {
			note("the configuration, which holds secrets,", configFile, 0o006)
		} else {
			note("the configuration", configFile, 0o002)
		}
	}
	return list
}

// exposure says how others get at a file: by the bits of its mode, or because it is
// theirs. It is empty of a file that is well or not there.
func exposure(path string, bits fs.FileMode) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	self, owner, mode := os.Geteuid(), int(stat.Uid), info.Mode().Perm()

	switch {
	case owner != self && owner != 0:
		return fmt.Sprintf("belongs to user %d: chown %d %s", owner, self, path)
	case mode&bits == 0:
		return ""
	case isPodVolume(info, stat, self):
		return ""
	case mode&bits&0o002 != 0:
		return fmt.Sprintf("has mode %#o, so everybody may change it: chmod o-rwx %s", mode, path)
	default:
		return fmt.Sprintf("has mode %#o, so everybody may read it: chmod o-rwx %s", mode, path)
	}
}

// isPodVolume reports whether a folder is a volume as Kubernetes gives it to one pod
// with an fsGroup: root's, open to all, and with a group that is this process's.
func isPodVolume(info fs.FileInfo, stat *syscall.Stat_t, self int) bool {
	if self == 0 || stat.Uid != 0 || info.Mode()&fs.ModeSetgid == 0 {
		return false
	}
	groups, err := os.Getgroups()
	return err == nil && (int(stat.Gid) == os.Getegid() || slices.Contains(groups, int(stat.Gid)))
}

// secretPlaces are the secrets of a configuration, and the files that hold some.
type secretPlaces struct {
	values, files []string
}

// secretsOf looks through the whole configuration.
func secretsOf(cfg *config.Config) *secretPlaces {
	found := &secretPlaces{}
	found.walk(reflect.ValueOf(cfg).Elem(), "")
	for _, s := range cfg.Sinks {
		found.walk(reflect.ValueOf(s.Config).Elem(), "")
	}
	return found
}

// inline reports whether one of the values stands in a file, rather than in the
// environment.
func (p *secretPlaces) inline(file string) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(p.values, func(value string) bool { return bytes.Contains(text, []byte(value)) })
}

// walk visits a value of the configuration; key is that of the file.
func (p *secretPlaces) walk(v reflect.Value, key string) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
			if key == "tls" && name == "key" {
				name = "key_file"
			}
			p.walk(v.Field(i), name)
		}
	case reflect.Slice:
		for i := range v.Len() {
			p.walk(v.Index(i), key)
		}
	case reflect.Map:
		for _, name := range v.MapKeys() {
			p.walk(v.MapIndex(name), key)
		}
	case reflect.String:
		p.value(v, key)
	}
}

// withPassword matches addresses that hold one.
var withPassword = regexp.MustCompile(`^[^@]*:[^@/]+@`)

func (p *secretPlaces) value(v reflect.Value, key string) {
	text := v.String()
	secret, isSecret := v.Interface().(sinks.Secret)
	switch isAddress := key == "url" || key == "dsn"; {
	case text == "":
	// An address without a password is none.
	case isSecret && isAddress && !withPassword.MatchString(string(secret)):
	case isSecret:
		p.values = append(p.values, text)
	case strings.HasSuffix(key, "_file") && key != "public_key_file":
		p.files = append(p.files, text)
	}
}
