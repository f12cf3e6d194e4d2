{{- define "ditochat.fullname" -}}
{{- .Values.fullnameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "ditochat.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: backend
{{- end }}

{{- define "ditochat.valkey.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: valkey
{{- end }}

{{- define "ditochat.common" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "ditochat.labels" -}}
{{ include "ditochat.selector" . }}
{{ include "ditochat.common" . }}
{{- end }}

{{- define "ditochat.valkey.labels" -}}
{{ include "ditochat.valkey.selector" . }}
{{ include "ditochat.common" . }}
{{- end }}

{{- define "ditochat.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "ditochat.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "ditochat.fullname" .) "default") }}
{{- end }}

{{- define "ditochat.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ . }}
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Several instances need one Redis: exactly one way to it. */}}
{{- define "ditochat.checkRedis" -}}
{{- $own := or .Values.redis.url .Values.redis.existingSecret }}
{{- if and .Values.valkey.enabled $own }}
{{- fail "valkey.enabled and redis.url or redis.existingSecret exclude each other: set valkey.enabled=false to use your own Redis" }}
{{- end }}
{{- if and .Values.redis.url .Values.redis.existingSecret }}
{{- fail "redis.url and redis.existingSecret exclude each other: set one of them" }}
{{- end }}
{{- if and .Values.valkey.enabled .Values.redis.waitReplicas }}
{{- fail "redis.waitReplicas is for a Redis of your own: the chart's Valkey has no replica" }}
{{- end }}
{{- if not (or .Values.valkey.enabled $own) }}
{{- fail "no Redis: set valkey.enabled=true, redis.url or redis.existingSecret" }}
{{- end }}
{{- end }}

{{- define "ditochat.valkey.secret" -}}
{{- .Values.valkey.auth.existingSecret | default (printf "%s-valkey" (include "ditochat.fullname" .)) }}
{{- end }}
