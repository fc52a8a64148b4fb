{{- define "kubervisor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kubervisor.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "kubervisor.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kubervisor.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kubervisor.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kubervisor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: controller
{{- end }}

{{- define "kubervisor.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "kubervisor.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kubervisor.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "kubervisor.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "kubervisor.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The number of the port of /metrics, /live and /ready. */}}
{{- define "kubervisor.port" -}}
{{- .Values.addr | splitList ":" | last }}
{{- end }}

{{/* What the controller may do in the namespaces that it works on: equal to examples/kubernetes/rbac.yaml, by a test. */}}
{{- define "kubervisor.rules" -}}
- {apiGroups: [""], resources: [pods], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [pods/eviction], verbs: [create]}
- {apiGroups: [""], resources: [services], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [secrets, configmaps], verbs: [get]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [get, list, watch]}
- {apiGroups: [apps], resources: [deployments, replicasets, statefulsets], verbs: [get, list, watch]}
- {apiGroups: [apps], resources: [daemonsets], verbs: [get, list]}
- {apiGroups: [batch], resources: [jobs], verbs: [get, list]}
- {apiGroups: ["*"], resources: ["*/scale"], verbs: [get]}
- {apiGroups: [autoscaling], resources: [horizontalpodautoscalers], verbs: [get, list, watch]}
- {apiGroups: [kubervisor.k8s.io], resources: [kubervisorservices], verbs: [get, list, watch, patch]}
- {apiGroups: [kubervisor.k8s.io], resources: [kubervisorservices/status], verbs: [update]}
- {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
{{- end }}

{{/* What the controllers may do in the release's namespace, where they coordinate: equal to the example too. */}}
{{- define "kubervisor.storeRules" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, list, watch, create, update, delete]}
- {apiGroups: [""], resources: [configmaps], verbs: [get, list, watch, create, patch, delete]}
{{- end }}

{{- define "kubervisor.container" -}}
image: {{ include "kubervisor.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- end }}

{{/* What pods of the controller and of its hooks have in common. */}}
{{- define "kubervisor.pod" -}}
serviceAccountName: {{ include "kubervisor.serviceAccountName" . }}
securityContext: {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* How the controllers, and the hook in their place, find each other. */}}
{{- define "kubervisor.coordination" -}}
{{- with .Values.coordination }}
- {name: KUBERVISOR_STORE, value: {{ .store | default (printf "kubernetes:%s" $.Release.Namespace) | quote }}}
- {name: KUBERVISOR_CLUSTER_NAME, value: {{ .clusterName | quote }}}
- {name: KUBERVISOR_LEASE, value: {{ .leaseSeconds | quote }}}
- {name: KUBERVISOR_WEIGHT, value: {{ .weight | quote }}}
{{- end }}
{{- end }}
