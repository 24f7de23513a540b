{{- define "stt.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "stt.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* name of the Secret */}}
{{- define "stt.secret" -}}
{{- if .Values.existingSecret }}{{ .Values.existingSecret }}
{{- else if .Values.externalSecret.enabled }}{{ include "stt.name" . }}
{{- else }}{{ fail "set existingSecret to the name of a Secret, or externalSecret.enabled=true" }}
{{- end }}
{{- end }}

{{/* labels that select pods; (list $ "consumer") */}}
{{- define "stt.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "stt.labels" -}}
{{ include "stt.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{/* variables read from the Secret; (list $ "DATABASE_URL" …) */}}
{{- define "stt.secrets" -}}
{{- $root := index . 0 }}
{{- range rest . }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ include "stt.secret" $root }}
      key: {{ . }}
{{- end }}
{{- end }}

{{/* what api, consumer and scheduler have in common */}}
{{- define "stt.settings" -}}
- name: BROKER
  value: rabbitmq
- name: STORAGE
  value: minio
- name: MINIO_ENDPOINT
  value: {{ .Values.storage.endpoint | quote }}
- name: MINIO_PUBLIC_ENDPOINT
  value: {{ .Values.storage.publicEndpoint | quote }}
- name: MINIO_BUCKET
  value: {{ .Values.storage.bucket | quote }}
- name: MINIO_USE_SSL
  value: {{ .Values.storage.useSsl | quote }}
- name: METRICS_HOST
  value: "0.0.0.0"
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- define "stt.pod" -}}
serviceAccountName: {{ include "stt.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* where the pods of a process run; its values */}}
{{- define "stt.placement" -}}
{{- range $key := list "nodeSelector" "tolerations" "affinity" }}
{{- with get $ $key }}
{{ $key }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "stt.container" -}}
image: {{ include "stt.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* the process touches READY_FILE every 5 s once it is ready; a start may wait for the stores */}}
{{- define "stt.readyFileProbes" -}}
startupProbe:
  exec: &ready
    command: [sh, -c, 'test -n "$(find "$READY_FILE" -newermt "-30 seconds")"']
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  exec: *ready
  periodSeconds: 10
  timeoutSeconds: 5
livenessProbe:
  exec: *ready
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
{{- end }}
