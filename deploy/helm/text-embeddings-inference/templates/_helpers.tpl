{{- define "tei.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "tei.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tei.labels" -}}
{{ include "tei.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/*
Options as arguments: a list repeats the flag, true is the flag alone; false is a value, but of flags that take none.
Numbers are whole: Helm reads them as floats, and would write a large one with an exponent.
*/}}
{{- define "tei.arguments" -}}
{{- $flags := list "json-output" "disable-spans" "no-compile-cache" "trust-remote-code" -}}
{{- range $name, $value := .Values.options }}
{{- if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%v" $name . | quote }}
{{- end }}
{{- else if kindIs "bool" $value }}
{{- if $value }}
- {{ printf "--%s" $name | quote }}
{{- else if not (has $name $flags) }}
- {{ printf "--%s=false" $name | quote }}
{{- end }}
{{- else if kindIs "string" $value }}
- {{ printf "--%s=%s" $name $value | quote }}
{{- else }}
- {{ printf "--%s=%d" $name (int64 $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}
