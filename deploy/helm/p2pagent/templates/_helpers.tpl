{{- define "p2pagent.fullname" -}}
{{- if contains "p2pagent" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-p2pagent" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "p2pagent.selector" -}}
app.kubernetes.io/name: p2pagent
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end -}}

{{/* What labels an object of the release; pods add the selector. */}}
{{- define "p2pagent.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: p2pagent
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "p2pagent.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "p2pagent.keySecret" -}}
{{- .Values.swarmKey.existingSecret | default (printf "%s-swarm-key" (include "p2pagent.fullname" .)) -}}
{{- end -}}

{{/* The agent's configuration file: what values say, under what the chart decides. */}}
{{- define "p2pagent.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- $cache := .Values.cache.hostPath | trimSuffix "/" -}}
{{- $peers := printf "%s.%s.svc:%d" (include "p2pagent.fullname" .) .Release.Namespace (int .Values.ports.gossip) -}}
{{- $_ := set $config "join" (concat (list $peers) (.Values.config.join | default list)) -}}
{{- $_ := set $config "hub-cache" (printf "%s/hub" $cache) -}}
{{- $_ := set $config "state-dir" (printf "%s/agent" $cache) -}}
{{- $_ := set $config "socket" (printf "%s/run/agent.sock" $cache) -}}
{{- $_ := set $config "swarm-key-file" "/etc/p2pagent/key/swarm.key" -}}
{{- $_ := set $config "gossip-port" (int .Values.ports.gossip) -}}
{{- $_ := set $config "swarm-port" (int .Values.ports.swarm) -}}
{{- if .Values.gateway.enabled }}{{ $_ := set $config "gateway-xet" (.Values.gateway.xet | default "off") }}{{ end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* Where what listens for others is found: the pod's own addresses, or the node's one. */}}
{{- define "p2pagent.listen" -}}
{{- if .Values.hostNetwork }}$(POD_IP){{ end -}}
{{- end -}}

{{/* The label node=NAME names a member to people; the variable replaces the file's labels, so it repeats them. */}}
{{- define "p2pagent.label" -}}
{{- $all := merge (dict "node" "$(NODE_NAME)") (.Values.config.label | default dict) -}}
{{- $pairs := list -}}
{{- range $k, $v := $all }}{{ $pairs = append $pairs (printf "%s=%v" $k $v) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{- define "p2pagent.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "p2pagent.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.user }}
runAsGroup: {{ .Values.group }}
# For the Secret with the key: a group that may read it. A hostPath is never changed by it.
fsGroup: {{ .Values.group }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Variables that say where the agent's settings are, and which node this is. */}}
{{- define "p2pagent.env" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: P2PAGENT_CONFIG
  value: /etc/p2pagent/p2pagent.yaml
- name: P2PAGENT_ADVERTISE
  value: $(POD_IP)
- name: P2PAGENT_LABEL
  value: {{ include "p2pagent.label" . | quote }}
- name: P2PAGENT_METRICS_ADDR
  value: "{{ include "p2pagent.listen" . }}:{{ .Values.metrics.port }}"
- name: P2PAGENT_GATEWAY
  value: {{ if .Values.gateway.enabled }}"{{ include "p2pagent.listen" . }}:{{ .Values.gateway.port }}"{{ else }}"off"{{ end }}
{{- if .Values.hubToken.existingSecret }}
- name: HF_TOKEN_PATH
  value: /etc/p2pagent/hub/token
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "p2pagent.mounts" -}}
- {name: cache, mountPath: {{ .Values.cache.hostPath | quote }}}
- {name: config, mountPath: /etc/p2pagent/p2pagent.yaml, subPath: p2pagent.yaml, readOnly: true}
- {name: key, mountPath: /etc/p2pagent/key, readOnly: true}
{{- if .Values.hubToken.existingSecret }}
- {name: hub-token, mountPath: /etc/p2pagent/hub, readOnly: true}
{{- end }}
{{- end -}}

{{- define "p2pagent.volumes" -}}
- name: cache
  hostPath: {path: {{ .Values.cache.hostPath | quote }}, type: DirectoryOrCreate}
- name: config
  configMap: {name: {{ include "p2pagent.fullname" . }}}
- name: key
  secret:
    secretName: {{ include "p2pagent.keySecret" . }}
    defaultMode: 0440
    items: [{key: swarm.key, path: swarm.key}]
{{- with .Values.hubToken.existingSecret }}
- name: hub-token
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: {{ $.Values.hubToken.key }}, path: token}]
{{- end }}
{{- end -}}
