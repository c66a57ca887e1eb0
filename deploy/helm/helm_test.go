// Package helm_test holds the chart and its examples against the daemon and the NATS
// server. What the chart renders is looked at in lint/, a module of its own.
package helm_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/faceid-ingest/faceid-ingest/pipeline/event"
)

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestConsumers wants KEDA to watch the consumers that the daemon makes.
func TestConsumers(t *testing.T) {
	text := read(t, "faceid-ingest/templates/scaledobject.yaml")
	for _, want := range []string{
		`{{ printf "` + event.ConsumerName("%s", "%s") + `" $account . }}`,
		"stream: " + event.Stream + "\n",
		`range list "` + string(event.Live) + `" "` + string(event.Backfill) + `"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("scaledobject.yaml does not say %s", want)
		}
	}
}

// natsValues are the values of NATS's chart that matter here.
type natsValues struct {
	Config struct {
		Cluster struct {
			Enabled  bool
			Replicas int
		}
		JetStream struct {
			Enabled   bool
			FileStore struct {
				Enabled bool
				PVC     struct{ Enabled bool }
			} `yaml:"fileStore"`
			Merge map[string]any
		} `yaml:"jetstream"`
		Merge map[string]any
	}
	Container struct {
		Image struct{ Tag string }
		Env   struct {
			Password struct {
				ValueFrom struct {
					SecretKeyRef struct{ Name, Key string } `yaml:"secretKeyRef"`
				} `yaml:"valueFrom"`
			} `yaml:"NATS_PASSWORD"`
		}
	}
}

// TestNATSValues has the server read what NATS's chart makes of the example, and wants
// it to lose nothing that it confirmed, on as many servers as the streams need.
func TestNATSValues(t *testing.T) {
	var v natsValues
	if err := yaml.Unmarshal([]byte(read(t, "faceid-ingest/examples/nats-values.yaml")), &v); err != nil {
		t.Fatal(err)
	}
	js := v.Config.JetStream
	if !v.Config.Cluster.Enabled || v.Config.Cluster.Replicas != 3 || !js.Enabled || !js.FileStore.Enabled || !js.FileStore.PVC.Enabled {
		t.Errorf("%+v", v.Config)
	}
	for _, file := range []string{"faceid-ingest/values.yaml", "faceid-ingest/examples/full.yaml"} {
		var ours struct {
			Config struct{ NATS struct{ Replicas int } }
		}
		if err := yaml.Unmarshal([]byte(read(t, file)), &ours); err != nil || ours.Config.NATS.Replicas != v.Config.Cluster.Replicas {
			t.Errorf("%s keeps streams on %d of %d servers (%v)", file, ours.Config.NATS.Replicas, v.Config.Cluster.Replicas, err)
		}
	}
	if want := server.VERSION + "-alpine"; v.Container.Image.Tag != want {
		t.Errorf("the server is %s, the tests run with %s", v.Container.Image.Tag, want)
	}
	if ref := v.Container.Env.Password.ValueFrom.SecretKeyRef; ref.Name == "" || ref.Key == "" {
		t.Error("the password is not in a Secret")
	}

	t.Setenv("NATS_PASSWORD", "p0123456789")
	o, err := server.ProcessConfigFile(natsConfig(t, v))
	if err != nil {
		t.Fatal(err)
	}
	if !o.SyncAlways {
		t.Error("a confirmed event is not on the disk")
	}
	if len(o.Users) != 1 || o.Users[0].Username != "ingest" || o.Users[0].Password != "p0123456789" {
		t.Errorf("the server knows %d users", len(o.Users))
	}
	if o.MaxPayload != 1<<20 {
		t.Errorf("max_payload is %d", o.MaxPayload)
	}
}

// natsConfig writes the configuration file as NATS's chart does: JSON, in which text
// between "<< " and " >>" has no quotes.
func natsConfig(t *testing.T, v natsValues) string {
	t.Helper()
	merged := map[string]any{"jetstream": v.Config.JetStream.Merge}
	for key, value := range v.Config.Merge {
		merged[key] = value
	}
	b, err := json.Marshal(merged)
	if err != nil {
		t.Fatal(err)
	}
	// encoding/json writes < and > as escapes.
	text := strings.NewReplacer(`"\u003c\u003c `, "", ` \u003e\u003e"`, "").Replace(string(b))
	file := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
