{{- define "faceid-ingest.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "faceid-ingest.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "faceid-ingest.labels" -}}
{{ include "faceid-ingest.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "faceid-ingest.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* How the admin port is spoken to. */ -}}
{{- define "faceid-ingest.scheme" -}}
{{- if dig "http" "tls" "cert" "" .Values.config }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{- /* Where the pod's own files are: the spool, and what commands leave behind. */ -}}
{{- define "faceid-ingest.dataDir" -}}/var/lib/faceid-ingest{{- end -}}

{{- /* The disk that a pod may fill: the spool's quota and a quarter. */ -}}
{{- define "faceid-ingest.diskLimit" -}}
{{ mul 1280 (int .Values.spool.quotaGiB) }}Mi
{{- end -}}

{{- /* The configuration file: that of the values, and what the pod decides. */ -}}
{{- define "faceid-ingest.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- include "faceid-ingest.refuse" $config -}}
{{- include "faceid-ingest.noSecrets" (dict "at" "config" "value" $config) -}}
{{- $_ := set $config "data_dir" (include "faceid-ingest.dataDir" .) -}}
{{- $_ := set $config "spool" (dict "quota" (printf "%dGiB" (int .Values.spool.quotaGiB))) -}}
{{- $worker := get $config "worker" | default dict -}}
{{- $_ := set $config "worker" (set $worker "shutdown_grace" (printf "%ds" (int .Values.shutdownGraceSeconds))) -}}
{{- $http := get $config "http" | default dict -}}
{{- $_ := set $config "http" (set $http "admin" (printf "0.0.0.0:%d" (int .Values.admin.port))) -}}
{{- toYaml $config -}}
{{- end -}}

{{- /* Ends with an error if the configuration decides what is the pod's, or would lose data with the pod. */ -}}
{{- define "faceid-ingest.refuse" -}}
{{- if hasKey . "data_dir" }}{{ fail "config.data_dir is the chart's: leave it out" }}{{ end -}}
{{- if hasKey . "spool" }}{{ fail "config.spool is the chart's: set spool.quotaGiB" }}{{ end -}}
{{- if hasKey (get . "http" | default dict) "admin" }}{{ fail "config.http.admin is the chart's: set admin.port" }}{{ end -}}
{{- if not (or (dig "http" "admin_token_file" "" .) (dig "http" "tls" "client_ca" "" .)) }}{{ fail "config.http has neither admin_token_file nor tls.client_ca: whoever reaches a pod could read its metrics and status" }}{{ end -}}
{{- if hasKey (get . "worker" | default dict) "shutdown_grace" }}{{ fail "config.worker.shutdown_grace is the chart's: set shutdownGraceSeconds" }}{{ end -}}
{{- if not (get . "accounts") }}{{ fail "config.accounts is empty: there is nothing to ingest" }}{{ end -}}
{{- if not (get (get . "privacy" | default dict) "keyring_file") }}{{ fail "config.privacy.keyring_file is empty: each pod would make a keyring of its own, and lose it" }}{{ end -}}
{{- if has (get (get . "nats" | default dict) "url") (list nil "" "embedded") }}{{ fail "config.nats.url must name NATS servers: one in a pod would lose events with it" }}{{ end -}}
{{- range get . "sinks" }}
{{- if and (has .type (list "dir" "sqlite")) (or (not .path) (not (hasPrefix "/" .path)) (hasPrefix "/var/lib/faceid-ingest" .path)) }}
{{- fail (printf "config.sinks: %s would lie in the pod and be gone with it: set path to a volume of extraVolumeMounts" .name) }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* Ends with an error at a secret's value: it belongs into a file, or an environment variable. */ -}}
{{- define "faceid-ingest.noSecrets" -}}
{{- $at := .at -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- $path := printf "%s.%s" $at $key -}}
{{- if kindIs "string" $value -}}
{{- if and (has $key (list "secret_id" "secret_key" "session_token" "password" "secret")) $value (not (regexMatch "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" $value)) -}}
{{- fail (printf "%s is a secret's value, which a ConfigMap would show: set %s_file to a file in /run/secrets" $path $path) -}}
{{- end -}}
{{- if and (has $key (list "url" "dsn")) (regexMatch "(^|//)[^/@:]*:[^@/]+@" $value) -}}
{{- fail (printf "%s holds a password, which a ConfigMap would show: set password_file, or %s_file" $path $path) -}}
{{- end -}}
{{- else -}}
{{- include "faceid-ingest.noSecrets" (dict "at" $path "value" $value) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range $i, $value := .value -}}
{{- include "faceid-ingest.noSecrets" (dict "at" (printf "%s[%d]" $at $i) "value" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
