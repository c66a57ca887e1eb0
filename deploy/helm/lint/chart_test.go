// Package lint_test renders the chart with helm, decodes what comes out into the types
// of Kubernetes, KEDA and the Prometheus operator, and looks whether its parts fit
// together. It is a module of its own, so that these types and helm stay out of the
// daemon's.
package lint_test

import (
	"bufio"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

func newReader(text string) *bufio.Reader { return bufio.NewReader(strings.NewReader(text)) }

// configuration is what these tests need of a configuration file; the real binary
// checks all of it.
type configuration struct {
	DataDir  string                  `json:"data_dir"`
	Accounts []struct{ Name string } `json:"accounts"`
	Spool    struct{ Quota string }  `json:"spool"`
	Worker   struct {
		ShutdownGrace string `json:"shutdown_grace"`
	} `json:"worker"`
	HTTP struct {
		Admin string
		TLS   struct{ Cert string }
	} `json:"http"`
}

func TestChart(t *testing.T) {
	binary := program(t)
	for name, args := range cases {
		t.Run(name, func(t *testing.T) {
			o, _ := render(t, args...)
			text := o.config.Data["config.yaml"]
			checkConfig(t, binary, text)
			var c configuration
			if err := yaml.Unmarshal([]byte(text), &c); err != nil {
				t.Fatal(err)
			}
			o.checkPod(t)
			o.checkScheme(t, c)
			o.checkTimesAndSizes(t, c)
			o.checkFiles(t, text)
			o.checkReferences(t)
			o.checkNetwork(t)
			if name == "full" {
				o.checkScaling(t, c)
				o.checkMonitor(t)
			} else if o.deployment.Spec.Replicas == nil || *o.deployment.Spec.Replicas != 2 {
				t.Error("without KEDA there are not two pods")
			}
		})
	}
}

// checkConfig has the real binary read the configuration.
func checkConfig(t *testing.T, binary, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), binary, "--config", file, "config", "check", "--static").CombinedOutput(); err != nil {
		t.Errorf("config check: %v\n%s", err, out)
	}
}

func (o *objects) pod() core.PodSpec { return o.deployment.Spec.Template.Spec }

func (o *objects) container(t *testing.T) core.Container {
	t.Helper()
	if n := len(o.pod().Containers); n != 1 {
		t.Fatalf("the pod has %d containers", n)
	}
	return o.pod().Containers[0]
}

// checkPod wants what Kubernetes calls the restricted profile, and more.
func (o *objects) checkPod(t *testing.T) {
	t.Helper()
	pod, c := o.pod(), o.container(t)
	is := func(b *bool, want bool) bool { return b != nil && *b == want }
	all, own := pod.SecurityContext, c.SecurityContext
	for what, good := range map[string]bool{
		"runs as nobody in particular":  is(all.RunAsNonRoot, true) && all.RunAsUser != nil && *all.RunAsUser == 65532,
		"lets its group read secrets":   all.FSGroup != nil && *all.FSGroup == *all.RunAsGroup,
		"has a seccomp profile":         all.SeccompProfile != nil && all.SeccompProfile.Type == core.SeccompProfileTypeRuntimeDefault,
		"cannot write to its image":     is(own.ReadOnlyRootFilesystem, true),
		"gains no privileges":           is(own.AllowPrivilegeEscalation, false) && is(own.Privileged, false),
		"has no capabilities":           slices.Equal(own.Capabilities.Drop, []core.Capability{"ALL"}) && own.Capabilities.Add == nil,
		"has no service account token":  is(pod.AutomountServiceAccountToken, false) && is(o.account.AutomountServiceAccountToken, false),
		"does not share the node's":     !pod.HostNetwork && !pod.HostPID && !pod.HostIPC,
		"has a bound on memory":         !c.Resources.Limits.Memory().IsZero() && c.Resources.Limits.Memory().Equal(*c.Resources.Requests.Memory()),
		"is named by tag or digest":     strings.ContainsAny(filepath.Base(c.Image), ":@"),
		"is spread":                     len(pod.TopologySpreadConstraints) == 2,
		"is kept while another is made": o.deployment.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue() == 0,
	} {
		if !good {
			t.Errorf("not true of the pod: it %s", what)
		}
	}
	for path, probe := range map[string][]*core.Probe{"/healthz": {c.StartupProbe, c.LivenessProbe}, "/readyz": {c.ReadinessProbe}} {
		for _, p := range probe {
			if p == nil || p.HTTPGet == nil || p.HTTPGet.Path != path || p.HTTPGet.Port != intstr.FromString("admin") {
				t.Errorf("a probe of %s is %+v", path, p)
			}
		}
	}
	// telemetry gives all checks together five seconds.
	if c.ReadinessProbe.TimeoutSeconds <= 5 {
		t.Error("the kubelet does not wait for /readyz")
	}
}

// checkScheme wants the kubelet and Prometheus to speak as the daemon does.
func (o *objects) checkScheme(t *testing.T, c configuration) {
	t.Helper()
	want := core.URISchemeHTTP
	if c.HTTP.TLS.Cert != "" {
		want = core.URISchemeHTTPS
	}
	for _, p := range []*core.Probe{o.container(t).StartupProbe, o.container(t).LivenessProbe, o.container(t).ReadinessProbe} {
		if p.HTTPGet.Scheme != want {
			t.Errorf("a probe asks by %s, the daemon answers to %s", p.HTTPGet.Scheme, want)
		}
	}
	for _, e := range o.monitor.Spec.Endpoints {
		if e.Scheme == nil || !strings.EqualFold(string(*e.Scheme), string(want)) {
			t.Errorf("Prometheus asks by %v, the daemon answers to %s", e.Scheme, want)
		}
	}
}

func (o *objects) checkTimesAndSizes(t *testing.T, c configuration) {
	t.Helper()
	grace, err := time.ParseDuration(c.Worker.ShutdownGrace)
	if wait := o.pod().TerminationGracePeriodSeconds; err != nil || wait == nil || time.Duration(*wait)*time.Second <= grace {
		t.Errorf("Kubernetes kills before shutdown_grace %s is over (%v)", c.Worker.ShutdownGrace, err)
	}
	quota, err := resource.ParseQuantity(strings.TrimSuffix(c.Spool.Quota, "B")) // GiB is Gi
	if err != nil {
		t.Fatal(err)
	}
	limit := o.volume(t, c.DataDir).EmptyDir.SizeLimit
	if limit == nil || limit.Cmp(quota) <= 0 {
		t.Errorf("the spool's quota %s is not below the volume's limit %s", c.Spool.Quota, limit)
	}
	resources := o.container(t).Resources
	for _, list := range []core.ResourceList{resources.Limits, resources.Requests} {
		if disk := list.StorageEphemeral(); disk.Cmp(*limit) < 0 {
			t.Errorf("the pod may fill %s of the disk, its spool %s", disk, limit)
		}
	}
}

// volume returns what is mounted at a path.
func (o *objects) volume(t *testing.T, path string) core.Volume {
	t.Helper()
	for _, m := range o.container(t).VolumeMounts {
		if m.MountPath != path {
			continue
		}
		for _, v := range o.pod().Volumes {
			if v.Name == m.Name {
				return v
			}
		}
	}
	t.Fatalf("nothing is mounted at %s", path)
	return core.Volume{}
}

// checkFiles wants every file of the configuration to be where Secrets are mounted,
// readable by the daemon only, and no secret elsewhere.
func (o *objects) checkFiles(t *testing.T, text string) {
	t.Helper()
	secrets := o.volume(t, "/run/secrets")
	if secrets.Projected == nil || *secrets.Projected.DefaultMode != 0o440 {
		t.Fatalf("secrets are mounted as %+v", secrets)
	}
	for _, s := range secrets.Projected.Sources {
		if s.Secret == nil || s.Secret.Optional != nil {
			t.Errorf("a pod may start without its secrets: %+v", s)
		}
	}
	var c any
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	files := 0
	each(c, func(key, value string) {
		if _, isFile := strings.CutSuffix(key, "_file"); isFile || key == "ca" || key == "cert" {
			files++
			if filepath.Dir(value) != "/run/secrets" {
				t.Errorf("%s is %s", key, value)
			}
		}
	})
	if files < 7 {
		t.Errorf("only %d files were looked at", files)
	}
	if volume := o.volume(t, "/etc/faceid-ingest"); volume.ConfigMap == nil || volume.ConfigMap.Name != o.config.Name {
		t.Error("the configuration is not mounted")
	}
	if args := o.container(t).Args; !slices.Equal(args, []string{"--config", "/etc/faceid-ingest/config.yaml", "run"}) {
		t.Errorf("the pod runs %v", args)
	}
	if len(o.deployment.Spec.Template.Annotations["checksum/config"]) != 64 {
		t.Error("a changed configuration does not replace the pods")
	}
}

// each calls f for each string of a document.
func each(value any, f func(key, value string)) {
	switch v := value.(type) {
	case map[string]any:
		for key, value := range v {
			if text, ok := value.(string); ok {
				f(key, text)
			}
			each(value, f)
		}
	case []any:
		for _, value := range v {
			each(value, f)
		}
	}
}

// checkReferences wants names and selectors to find what they are for.
func (o *objects) checkReferences(t *testing.T) {
	t.Helper()
	pod := labels.Set(o.deployment.Spec.Template.Labels)
	for what, selector := range map[string]*meta.LabelSelector{
		"Deployment": o.deployment.Spec.Selector, "PodDisruptionBudget": o.budget.Spec.Selector,
		"NetworkPolicy": &o.network.Spec.PodSelector, "Service": {MatchLabels: o.service.Spec.Selector},
		"topology spread": o.pod().TopologySpreadConstraints[0].LabelSelector,
	} {
		s, err := meta.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(pod) {
			t.Errorf("%s does not select the pod: %v, %v", what, s, err)
		}
	}
	if o.pod().ServiceAccountName != o.account.Name || o.account.Name == "" {
		t.Error("the pod has no account of its own")
	}
	if p := o.budget.Spec; p.MaxUnavailable.IntValue() != 1 || *p.UnhealthyPodEvictionPolicy != policy.AlwaysAllow {
		t.Errorf("%+v", p)
	}
	port := o.container(t).Ports[0]
	if s := o.service.Spec; s.ClusterIP != core.ClusterIPNone || !s.PublishNotReadyAddresses || s.Ports[0].TargetPort.StrVal != port.Name {
		t.Errorf("%+v", o.service.Spec)
	}
}

// checkNetwork wants what the configuration needs to be let through, and nothing in
// but Prometheus.
func (o *objects) checkNetwork(t *testing.T) {
	t.Helper()
	spec := o.network.Spec
	if !slices.Equal(spec.PolicyTypes, []networking.PolicyType{"Ingress", "Egress"}) {
		t.Errorf("the policy is about %v", spec.PolicyTypes)
	}
	if len(spec.Ingress) != 1 || len(spec.Ingress[0].From) != 1 || len(spec.Ingress[0].Ports) != 1 ||
		spec.Ingress[0].Ports[0].Port.StrVal != "admin" || spec.Ingress[0].From[0].PodSelector.MatchLabels["app.kubernetes.io/name"] != "prometheus" {
		t.Errorf("others than Prometheus get in: %+v", spec.Ingress)
	}
	ports := map[int]bool{}
	for _, rule := range spec.Egress {
		if len(rule.To) == 0 || len(rule.Ports) == 0 {
			t.Errorf("a rule lets everything out: %+v", rule)
		}
		for _, p := range rule.Ports {
			ports[p.Port.IntValue()] = true
		}
	}
	for _, want := range []int{53, 443, 4222, 5432} {
		if !ports[want] {
			t.Errorf("port %d is closed; open are %v", want, slices.Sorted(maps.Keys(ports)))
		}
	}
}

// checkScaling wants a trigger for each consumer. What the metadata may hold KEDA
// reads into no type: these are the names of its nats-jetstream scaler.
func (o *objects) checkScaling(t *testing.T, c configuration) {
	t.Helper()
	spec := o.scaled.Spec
	if o.deployment.Spec.Replicas != nil {
		t.Error("the Deployment and KEDA both say how many pods there are")
	}
	if spec.ScaleTargetRef.Name != o.deployment.Name || *spec.MinReplicaCount < 1 || *spec.MaxReplicaCount < *spec.MinReplicaCount {
		t.Errorf("%+v", spec)
	}
	if f := spec.Fallback; f == nil || f.Replicas != *spec.MinReplicaCount || f.Behavior != "currentReplicasIfHigher" {
		t.Errorf("when KEDA does not know the lag: %+v", spec.Fallback)
	}
	known := []string{"account", "activationLagThreshold", "consumer", "lagThreshold", "natsServerMonitoringEndpoint", "stream", "useHttps"}
	var have, want []string
	for _, trigger := range spec.Triggers {
		have = append(have, trigger.Metadata["consumer"])
		if keys := slices.Sorted(maps.Keys(trigger.Metadata)); trigger.Type != "nats-jetstream" || !slices.Equal(keys, known) || trigger.Metadata["stream"] != "FACEID" || trigger.Metadata["lagThreshold"] != "2000" {
			t.Errorf("%+v", trigger)
		}
	}
	for _, account := range c.Accounts {
		want = append(want, "ingest-"+account.Name+"-live", "ingest-"+account.Name+"-backfill")
	}
	if !slices.Equal(have, want) || len(want) != 4 {
		t.Errorf("triggers for %v, consumers %v", have, want)
	}
}

func (o *objects) checkMonitor(t *testing.T) {
	t.Helper()
	spec := o.monitor.Spec
	s, err := meta.LabelSelectorAsSelector(&spec.Selector)
	if err != nil || s.Empty() || !s.Matches(labels.Set(o.service.Labels)) {
		t.Errorf("the ServiceMonitor does not select the Service: %v, %v", s, err)
	}
	if len(spec.Endpoints) != 1 || spec.Endpoints[0].Port != o.service.Spec.Ports[0].Name || spec.Endpoints[0].Path != "/metrics" {
		t.Errorf("%+v", spec.Endpoints)
	}
}
