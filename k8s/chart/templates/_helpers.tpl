{{/* Name of the installation, in the labels of its objects. */}}
{{- define "digits.fullname" -}}
{{ .Values.fullnameOverride | default .Release.Name }}
{{- end }}

{{/* Name of an object: (list . "gateway"). The installation's name and a hyphen are before it, except for `digits`. */}}
{{- define "digits.name" -}}
{{- $fullname := include "digits.fullname" (index . 0) -}}
{{ ternary "" (print $fullname "-") (eq $fullname "digits") }}{{ index . 1 }}
{{- end }}

{{/* Name of a Secret: (list . "gatewayKeys"), which is gateway-keys by default. */}}
{{- define "digits.secret" -}}
{{ get (index . 0).Values.secrets (index . 1) | default (include "digits.name" (list (index . 0) (kebabcase (index . 1)))) | quote }}
{{- end }}

{{/* Claim of the volume of models. */}}
{{- define "digits.claim" -}}
{{ .Values.models.volume.existingClaim | default (include "digits.name" (list . "models")) | quote }}
{{- end }}

{{/* Labels that identify the pods of a component: (list . "gateway"). Selectors are immutable, so they have no others. */}}
{{- define "digits.selector" -}}
{app.kubernetes.io/name: {{ include "digits.fullname" (index . 0) | quote }}, app.kubernetes.io/component: {{ index . 1 }}}
{{- end }}

{{/* Labels of a component's objects: (list . "gateway"). Helm adds app.kubernetes.io/managed-by. */}}
{{- define "digits.labels" -}}
{{- $root := index . 0 -}}
{app.kubernetes.io/name: {{ include "digits.fullname" $root | quote }}, app.kubernetes.io/component: {{ index . 1 }}, app.kubernetes.io/instance: {{ quote $root.Release.Name }}, app.kubernetes.io/version: {{ quote $root.Chart.AppVersion }}, app.kubernetes.io/part-of: digits
{{- if gt (len .) 3 }}{{ range $name, $value := index . 3 }}, {{ quote $name }}: {{ quote $value }}{{ end }}{{ end }}}
{{- end }}

{{/* Metadata of a component's object: (list . "gateway" name), with further labels (dict …). */}}
{{- define "digits.metadata" -}}
name: {{ include "digits.name" (list (index . 0) (index . 2)) }}
namespace: {{ (index . 0).Release.Namespace | quote }}
labels: {{ include "digits.labels" . }}
{{- end }}

{{/* Fields of every pod: unprivileged, without a token: (list .), or (list . true) for volumes that are writable whatever their owner. */}}
{{- define "digits.pod" -}}
serviceAccountName: {{ include "digits.name" (list (index . 0) "digits") }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- $user := (index . 0).Values.runAsUser | int64 }}
securityContext: {runAsNonRoot: true, {{ if $user }}runAsUser: {{ $user }}, runAsGroup: {{ $user }}, {{ if gt (len .) 1 }}fsGroup: {{ $user }}, fsGroupChangePolicy: OnRootMismatch, {{ end }}{{ end }}seccompProfile: {type: RuntimeDefault}}
{{- end }}

{{/* Image of a container: (list . .Values.images.gateway). */}}
{{- define "digits.image" -}}
image: {{ index . 1 | quote }}
{{- with (index . 0).Values.imagePullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{- define "digits.containerSecurity" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{/* Labels and annotations of a component's pods: (list . "gateway"), with further annotations (dict …). */}}
{{- define "digits.podMetadata" -}}
{{- $values := (index . 0).Values -}}
labels: {{ include "digits.labels" (list (index . 0) (index . 1) "" $values.podLabels) }}
{{- with merge (dict) (index . 2) $values.podAnnotations }}
annotations:
  {{- range $name, $value := . }}
  {{ quote $name }}: {{ quote $value }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Where the pods of a component run: (list . "gateway" .Values.gateway); its own values replace those of all pods. */}}
{{- define "digits.scheduling" -}}
{{- $values := (index . 0).Values }}
{{- $name := index . 1 }}
{{- $own := index . 2 }}
{{- with $own.priorityClassName | default $values.priorityClassName }}
priorityClassName: {{ quote . }}
{{- end }}
{{- with $own.nodeSelector | default $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.topologySpreadConstraints | default $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- else }}
{{- if has $name (list "gateway" "model-server") }}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - {maxSkew: 1, topologyKey: {{ $key }}, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {{ include "digits.selector" (list (index $ 0) $name) }}}}
  {{- end }}
{{- end }}
{{- end }}
{{- $mounts := and (eq $values.models.source "volume") (has $name (list "model-server" "training" "releases")) }}
{{- $affinity := $own.affinity | default $values.affinity }}
{{- if and $mounts (eq $values.models.volume.accessMode "ReadWriteOnce") }}
{{- $affinity = merge (deepCopy $affinity) (include "digits.oneNode" . | fromYaml) }}
{{- end }}
{{- with $affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := $own.tolerations | default $values.tolerations }}
{{- if $own.gpu }}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") }}
{{- end }}
{{- with $tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A ReadWriteOnce volume is mounted on one node: that of the model server, whose first pod chooses it. */}}
{{- define "digits.oneNode" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {{ include "digits.selector" (list (index . 0) "model-server") }}
{{- end }}

{{/* Environment of every caller of the model server: gateways, training, and the CronJob `rollback`. */}}
{{- define "digits.connection" -}}
DIGITS_MODEL_SERVER: dns:///{{ include "digits.name" (list . "model-server-grpc") }}:8500
{{- if .Values.modelServer.tls }}
DIGITS_MODEL_SERVER_CA: /tls/ca.crt
DIGITS_MODEL_SERVER_CERTIFICATE: /tls/tls.crt
DIGITS_MODEL_SERVER_KEY: /tls/tls.key
{{- end }}
{{- end }}

{{- define "digits.url" -}}
{{ ternary "https" "http" .Values.gateway.tls }}://{{ include "digits.name" (list . "gateway") }}
{{- end }}

{{/* Environment of callers of the gateways in the cluster: the CronJob `rollback`, and helm test. */}}
{{- define "digits.release" -}}
- {name: DIGITS_URL, value: {{ include "digits.url" . }}}
{{- if .Values.gateway.tls }}
- {name: SSL_CERT_FILE, value: /server-tls/ca.crt}
{{- end }}
- name: DIGITS_API_KEY
  valueFrom: {secretKeyRef: {name: {{ include "digits.secret" (list . "releases") }}, key: api-key, optional: true}}
{{- end }}

{{/* Settings of the gateways; those of `gateway.settings` prevail. */}}
{{- define "digits.settings" -}}
{{- $settings := dict "DIGITS_MODEL_NAME" .Values.modelName "DIGITS_MODELS_TRAFFIC" "/traffic/models.traffic.json" }}
{{- if .Values.apiKeys }}
{{- $_ := set $settings "DIGITS_API_KEYS" "/keys/keys" }}
{{- end }}
{{- if .Values.rateLimit }}
{{- $_ := set $settings "DIGITS_RATE_LIMIT" .Values.rateLimit }}
{{- if not .Values.redis.external }}
{{- $_ := set $settings "DIGITS_RATE_LIMIT_STORE" (printf "redis://%s:6379" (include "digits.name" (list . "redis"))) }}
{{- end }}
{{- end }}
{{- if .Values.gateway.tls }}
{{- $_ := set $settings "DIGITS_TLS_CERTIFICATE" "/server-tls/tls.crt" }}
{{- $_ := set $settings "DIGITS_TLS_KEY" "/server-tls/tls.key" }}
{{- end }}
{{- if ne .Values.route.kind "none" }}
{{- $_ := set $settings "DIGITS_TRUSTED_PROXIES" (toString .Values.route.proxies) }}
{{- end }}
{{- if .Values.monitoring.traces }}
{{- $_ := set $settings "OTEL_EXPORTER_OTLP_ENDPOINT" .Values.monitoring.traces }}
{{- end }}
{{- range $name, $value := mergeOverwrite $settings .Values.gateway.settings }}
- {name: {{ $name }}, value: {{ quote $value }}}
{{- end }}
{{- if .Values.feedback.enabled }}
- name: DIGITS_FEEDBACK
  valueFrom:
    secretKeyRef: {name: {{ include "digits.secret" (list . "feedback") }}, key: url}
{{- end }}
{{- if and .Values.rateLimit .Values.redis.external }}
- name: DIGITS_RATE_LIMIT_STORE
  valueFrom:
    secretKeyRef: {name: {{ include "digits.secret" (list . "redis") }}, key: url}
{{- end }}
{{- end }}

{{- define "digits.dns" -}}
- to:
    {{- toYaml .Values.dns.peers | nindent 4 }}
  ports: [{port: {{ .Values.dns.port }}, protocol: UDP}, {port: {{ .Values.dns.port }}, protocol: TCP}]
{{- end }}

{{- define "digits.podPeer" -}}
- podSelector: {matchLabels: {{ include "digits.selector" . }}}
{{- end }}

{{- define "digits.monitoringPeer" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ quote .Values.monitoring.namespace }}}}
{{- end }}

{{/* Files of the model server, and the key for `digits models pull`. */}}
{{- define "digits.config" -}}
{{- range list "monitoring.config" "batching.config" "start-model-server.sh" }}
{{ . }}: |
  {{- $.Files.Get (print "config/" .) | trim | nindent 2 }}
{{- end }}
{{- with .Values.models.bucket.publicKey }}
model-key.pem: |
  {{- trim . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Threads for all gateways' calls at one model server: each worker's, of two versions; 16 are spare. */}}
{{- define "digits.threads" -}}
{{- $settings := .Values.gateway.settings }}
{{- $calls := mul (int $settings.DIGITS_WORKERS | default 2) (int $settings.DIGITS_MAX_INFLIGHT_CALLS | default 1) 2 }}
{{- add (mul .Values.gateway.replicas.max $calls) 16 }}
{{- end }}

{{/* Seconds of a gateway's longest call. */}}
{{- define "digits.deadline" -}}
{{ .Values.gateway.settings.DIGITS_DEADLINE | default "5" | ceil }}
{{- end }}

{{/* Init container that brings the models, or waits for them. */}}
{{- define "digits.models" -}}
{{- $models := .Values.models }}
{{- if eq $models.source "volume" }}
# TensorFlow Serving ends if models.config does not exist, and each restart is delayed longer. The training job
# writes the file, as the first version is published.
initContainers:
  - name: wait
    {{- include "digits.image" (list . (ternary .Values.images.modelServerOnGpu .Values.images.modelServer .Values.modelServer.gpu)) | nindent 4 }}
    command: [bash, -c, "until [ -e /models/models.config ]; do sleep 1; done"]
    resources:
      {{- toYaml $models.resources | nindent 6 }}
    securityContext: {{ include "digits.containerSecurity" . }}
    volumeMounts:
      - {name: models, mountPath: /models, readOnly: true}
{{- else if eq $models.source "bucket" }}
initContainers:
  # Sidecar: it pulls what models.config of the bucket names, and looks for a change every half minute. The model server
  # starts once models.config is there, which `pull` writes last.
  - name: pull
    # The gateway's image has neither S3 nor signatures.
    {{- include "digits.image" (list . .Values.images.training) | nindent 4 }}
    command: [digits, models, pull, {{ quote $models.bucket.url }}, --every=30, --metrics-port=8502]
    restartPolicy: Always
    ports: [{name: pull, containerPort: 8502}]
    startupProbe:
      exec: {command: [test, -e, /models/models.config]}
      periodSeconds: 2
      failureThreshold: 150
    envFrom:
      - secretRef: {name: {{ include "digits.secret" (list . "modelBucket") }}{{ if .Values.serviceAccount.annotations }}, optional: true{{ end }}}
    env:
      - {name: DIGITS_MODELS, value: /models}
      {{- if $models.bucket.publicKey }}
      - {name: DIGITS_MODEL_PUBLIC_KEY, value: /config/model-key.pem}
      {{- end }}
    resources:
      {{- toYaml $models.resources | nindent 6 }}
    securityContext: {{ include "digits.containerSecurity" . }}
    volumeMounts:
      - {name: config, mountPath: /config, readOnly: true}
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- else if not $models.image.mounted }}
initContainers:
  - name: copy
    {{- include "digits.image" (list . $models.image.reference) | nindent 4 }}
    command: [cp, -r, /models, /volume]
    resources:
      {{- toYaml $models.resources | nindent 6 }}
    securityContext: {{ include "digits.containerSecurity" . }}
    volumeMounts:
      - {name: models, mountPath: /volume}
{{- end }}
{{- end }}

{{/* Number of a quantity such as 512Mi or 500m. */}}
{{- define "digits.quantity" -}}
{{- $unit := regexFind "([KMGTPE]i|[mkMGTPE])$" (toString .) }}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824
  "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 }}
{{- mulf (trimSuffix $unit (toString .) | float64) (get $factors $unit) }}
{{- end }}
