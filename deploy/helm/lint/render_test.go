package lint_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const (
	chart = "../faceid-ingest"
	full  = chart + "/examples/full.yaml"
)

// cases are the values that the chart is rendered with.
var cases = map[string][]string{
	"default": nil,
	"full":    {"--values", full},
}

// helm runs the helm that the Makefile builds. It finds no repository, plugin or
// cluster of whoever runs the tests.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "../../../bin/helm", args...)
	cmd.Env = []string{"HOME=" + home, "KUBECONFIG=" + filepath.Join(home, "none"), "PATH=" + os.Getenv("PATH")}
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err = cmd.Run()
	if missing := new(os.PathError); errors.As(err, &missing) {
		t.Fatalf("%v: run make bin/helm", err)
	}
	return out.String(), problems.String(), err
}

// objects are what the chart renders, decoded.
type objects struct {
	deployment apps.Deployment
	config     core.ConfigMap
	account    core.ServiceAccount
	service    core.Service
	budget     policy.PodDisruptionBudget
	network    networking.NetworkPolicy
	scaled     keda.ScaledObject
	monitor    monitoring.ServiceMonitor
}

// targets maps kinds to where they are decoded to.
func (o *objects) targets() map[string]any {
	return map[string]any{
		"apps/v1 Deployment":                      &o.deployment,
		"v1 ConfigMap":                            &o.config,
		"v1 ServiceAccount":                       &o.account,
		"v1 Service":                              &o.service,
		"policy/v1 PodDisruptionBudget":           &o.budget,
		"networking.k8s.io/v1 NetworkPolicy":      &o.network,
		"keda.sh/v1alpha1 ScaledObject":           &o.scaled,
		"monitoring.coreos.com/v1 ServiceMonitor": &o.monitor,
	}
}

// decode decodes one object as strictly as an API server that is asked to: a field
// that its type does not have, in another case or twice is an error.
func (o *objects) decode(document []byte) (kind string, err error) {
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return "", err
	}
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := json.UnmarshalCaseSensitivePreserveInts(text, &head); err != nil {
		return "", err
	}
	kind = head.APIVersion + " " + head.Kind
	target, known := o.targets()[kind]
	if !known {
		return kind, fmt.Errorf("nobody expects a %s", kind)
	}
	problems, err := json.UnmarshalStrict(text, target)
	return kind, errors.Join(append(problems, err)...)
}

// documents splits a rendering.
func documents(t *testing.T, rendering string) (list [][]byte) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(newReader(rendering))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(document)) > 0 {
			list = append(list, document)
		}
	}
}

// render renders the chart, and decodes it. Of each kind there is one at most.
func render(t *testing.T, args ...string) (*objects, map[string][]byte) {
	t.Helper()
	out, problems, err := helm(t, append([]string{"template", "faceid", chart, "--namespace", "faceid"}, args...)...)
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, problems)
	}
	o, texts := new(objects), map[string][]byte{}
	for _, document := range documents(t, out) {
		kind, err := o.decode(document)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if texts[kind] != nil {
			t.Errorf("two of %s", kind)
		}
		texts[kind] = document
	}
	return o, texts
}

// TestStrict shows that the decoder finds what an API server would drop without a
// word: in every kind, a field that is not known, and one in another case.
func TestStrict(t *testing.T) {
	_, texts := render(t, cases["full"]...)
	if want := len(new(objects).targets()); len(texts) != want {
		t.Errorf("the full values render %d kinds of %d", len(texts), want)
	}
	for kind, text := range texts {
		for _, wrong := range []string{"\nnonsense: true\n", "\nMetadata: {}\n", "\nkind: " + strings.Fields(kind)[1] + "\n"} {
			if _, err := new(objects).decode(append(bytes.Clone(text), wrong...)); err == nil {
				t.Errorf("%s: %q is taken", kind, wrong)
			}
		}
	}
	deep := map[string][2]string{
		"apps/v1 Deployment":                      {"readOnlyRootFilesystem:", "readOnlyRootFileSystem:"},
		"v1 Service":                              {"clusterIP:", "clusterIp:"},
		"policy/v1 PodDisruptionBudget":           {"maxUnavailable:", "maxUnavailible:"},
		"networking.k8s.io/v1 NetworkPolicy":      {"podSelector:", "podselector:"},
		"keda.sh/v1alpha1 ScaledObject":           {"minReplicaCount:", "minReplicas:"},
		"monitoring.coreos.com/v1 ServiceMonitor": {"interval:", "intervall:"},
	}
	for kind, change := range deep {
		wrong := bytes.Replace(texts[kind], []byte(change[0]), []byte(change[1]), 1)
		if _, err := new(objects).decode(wrong); err == nil || !strings.Contains(err.Error(), strings.TrimSuffix(change[1], ":")) {
			t.Errorf("%s with %s: %v", kind, change[1], err)
		}
	}
}

func TestLint(t *testing.T) {
	for name, args := range cases {
		out, problems, err := helm(t, append([]string{"lint", "--strict", chart}, args...)...)
		if err != nil || strings.Contains(out, "[WARNING]") || !strings.Contains(out, "1 chart(s) linted, 0 chart(s) failed") {
			t.Errorf("%s values: helm lint: %v\n%s%s", name, err, out, problems)
		}
	}
}

// TestRefused wants values that would lose results, show a secret or scale to nothing
// to be refused, with a word that helps.
func TestRefused(t *testing.T) {
	for set, want := range map[string]string{
		"config.data_dir=/data":                                          "config.data_dir is the chart's",
		"config.spool.quota=1GiB":                                        "set spool.quotaGiB",
		"config.http.admin=:1":                                           "set admin.port",
		"config.http.admin_token_file=":                                  "config.http has neither admin_token_file nor tls.client_ca",
		"config.worker.shutdown_grace=1h":                                "set shutdownGraceSeconds",
		"config.privacy.keyring_file=":                                   "keyring_file is empty",
		"config.nats.url=embedded":                                       "must name NATS servers",
		"config.nats.password=letmein":                                   "config.nats.password is a secret's value",
		"config.accounts[0].name=a,config.accounts[0].secret_key=SECRET": "config.accounts[0].secret_key is a secret's value",
		"config.sinks[0].name=a,config.sinks[0].type=sqlite,config.sinks[0].path=/var/lib/faceid-ingest/a.db": "gone with it",
		"config.sinks[0].name=a,config.sinks[0].type=dir,config.sinks[0].path=./data":                         "gone with it",
		"config.sinks[0].name=a,config.sinks[0].type=postgres,config.sinks[0].url=postgres://u:p@db/x":        "config.sinks[0].url holds a password",
		"config.sinks[0].name=a,config.sinks[0].type=mysql,config.sinks[0].dsn=u:p@tcp(db)/x":                 "config.sinks[0].dsn holds a password",
		"keda.minReplicas=0":                   "minimum",
		"keda.enabled=true,keda.maxReplicas=1": "more than keda.maxReplicas",
		"networkPolicy.nats.to=null":           "/networkPolicy/nats",
		"image.tag=latest":                     "/image/tag",
		"spool.quotaGB=4":                      "quotaGB",
		"nosuchvalue=1":                        "nosuchvalue",
	} {
		_, problems, err := helm(t, "template", "faceid", chart, "--set", set)
		if err == nil || !strings.Contains(problems, want) {
			t.Errorf("--set %s: %v, want %q\n%s", set, err, want, problems)
		}
	}
	// A secret may come from the environment.
	if _, problems, err := helm(t, "template", "faceid", chart, "--set", "config.nats.password=${NATS_PASSWORD}"); err != nil {
		t.Errorf("%v\n%s", err, problems)
	}
}

// program builds the real binary, in the way that its own tests were compiled a
// moment ago.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "faceid-ingest")
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "go", "build", "-race", "-o", file, "./cmd/faceid-ingest")
	cmd.Dir = "../../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}
