{{/* The name of everything: the release's, with the chart's behind it unless it is in there already. */}}
{{- define "sluicegate.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "sluicegate.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sluicegate.labels" -}}
{{ include "sluicegate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "sluicegate.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "sluicegate.fullname" .)) }}
{{- end -}}

{{- define "sluicegate.rulesConfigMap" -}}
{{ .Values.existingRulesConfigMap | default (printf "%s-rules" (include "sluicegate.fullname" .)) }}
{{- end -}}
