{{- define "certwave.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "certwave.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "certwave.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "certwave.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Cluster-wide names hold the namespace, so that two releases of one name do not meet. */}}
{{- define "certwave.clustername" -}}
{{- printf "%s-%s" .Release.Namespace (include "certwave.fullname" .) | trunc 110 | trimSuffix "-" }}
{{- end }}

{{- /* Names of the CRDs that the release installs, with commas: those that are not there, or its own. The others stay whose they are:
somebody's who applied crds/, or another release's. A CRD that the release had, as its Deployment tells, and that has lost Helm's annotations
is its own still: Helm would delete what is no longer rendered, and every object with it. */}}
{{- define "certwave.crds" -}}
{{- $names := list }}
{{- if .Values.crds.enabled }}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace (printf "%s-controller" (include "certwave.fullname" .)) }}
{{- $before := dig "metadata" "annotations" "certwave.dev/crds" "" $deployment | splitList "," }}
{{- range $path, $_ := .Files.Glob "files/crds/*.yaml" }}
{{- $name := base $path | trimSuffix ".yaml" }}
{{- $there := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" $name }}
{{- $release := dig "metadata" "annotations" "meta.helm.sh/release-name" "" $there }}
{{- $namespace := dig "metadata" "annotations" "meta.helm.sh/release-namespace" "" $there }}
{{- $mine := and (eq $release $.Release.Name) (eq $namespace $.Release.Namespace) }}
{{- if or (not $there) $mine (and (not $release) (has $name $before)) }}
{{- $names = append $names $name }}
{{- end }}
{{- end }}
{{- end }}
{{- join "," $names }}
{{- end }}

{{- define "certwave.serviceAccount" -}}
{{- default (printf "%s-controller" (include "certwave.fullname" .)) .Values.serviceAccount.name }}
{{- end }}

{{- /* (list . "component"): what selects the pods of a component; never changes. */}}
{{- define "certwave.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "certwave.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "certwave.labels" -}}
{{- $root := index . 0 -}}
{{ include "certwave.selector" . }}
app.kubernetes.io/part-of: certwave
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "certwave.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- /* Restricted pod security: https://kubernetes.io/docs/concepts/security/pod-security-standards/ */}}
{{- define "certwave.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "certwave.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* (dict "root" . "urlSecret" ...): the environment that says where PostgreSQL is. */}}
{{- define "certwave.postgresEnv" -}}
{{- $postgres := .root.Values.ledger.postgres -}}
- name: CERTWAVE_LEDGER
  {{- if .urlSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .urlSecret.name }}
      key: {{ .urlSecret.key }}
  {{- else }}
  value: {{ $postgres.url | quote }}
  {{- end }}
{{- if $postgres.passwordSecret.name }}
- name: CERTWAVE_LEDGER_PASSWORD_FILE
  value: /var/run/certwave/password/{{ $postgres.passwordSecret.key }}
{{- end }}
{{- if $postgres.caSecret.name }}
- name: CERTWAVE_LEDGER_CA
  value: /var/run/certwave/ledger-ca/{{ $postgres.caSecret.key }}
{{- end }}
{{- end }}

{{- define "certwave.postgresMounts" -}}
{{- with .Values.ledger.postgres -}}
{{- if .passwordSecret.name }}
- name: password
  mountPath: /var/run/certwave/password
  readOnly: true
{{- end }}
{{- if .caSecret.name }}
- name: ledger-ca
  mountPath: /var/run/certwave/ledger-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{- define "certwave.postgresVolumes" -}}
{{- with .Values.ledger.postgres -}}
{{- if .passwordSecret.name }}
- name: password
  secret:
    secretName: {{ .passwordSecret.name }}
    items: [{key: {{ .passwordSecret.key }}, path: {{ .passwordSecret.key }}}]
{{- end }}
{{- if .caSecret.name }}
- name: ledger-ca
  secret:
    secretName: {{ .caSecret.name }}
    items: [{key: {{ .caSecret.key }}, path: {{ .caSecret.key }}}]
{{- end }}
{{- end }}
{{- end }}

{{- define "certwave.ocspEnv" -}}
- name: CERTWAVE_OCSP_VALIDITY
  value: {{ .Values.ocsp.validitySeconds | int64 | quote }}
- name: CERTWAVE_OCSP_MAX_AGE
  value: {{ .Values.ocsp.maxAgeSeconds | int64 | quote }}
- name: CERTWAVE_OCSP_CACHE_MIB
  value: {{ .Values.ocsp.cacheMiB | int64 | quote }}
{{- end }}

{{- define "certwave.logEnv" -}}
- name: CERTWAVE_LOG_FORMAT
  value: {{ .Values.log.format }}
- name: RUST_LOG
  value: {{ .Values.log.filter | quote }}
{{- end }}
