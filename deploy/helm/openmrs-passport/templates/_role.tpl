{{/* Labels of a role: (dict "root" $ "role" "cdc" "of" "kigali"). */}}
{{- define "passport.labels" -}}
app.kubernetes.io/name: openmrs-passport
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
passport/of: {{ .of }}
{{- end }}

{{/* One Deployment of one role; `command` is what the image runs; `env` and `ports`: more of them. */}}
{{- define "passport.role" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ printf "%s-%s-%s" .root.Release.Name .role .of | trunc 63 | trimSuffix "-" }}
  labels: {{- include "passport.labels" . | nindent 4 }}
spec:
  replicas: {{ .replicas }}
  strategy: {type: {{ .strategy }}}
  selector:
    matchLabels: {{- include "passport.labels" . | nindent 6 }}
  template:
    metadata:
      labels: {{- include "passport.labels" . | nindent 8 }}
      annotations:
        passport/settings: {{ .root.Values.settings | toYaml | sha256sum }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: 30
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: passport
          image: "{{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}"
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{- concat (list "--config" "/config/local.yaml") .command | toYaml | nindent 12 }}
          env:
            - {name: PASSPORT_HEALTH__HOST, value: "0.0.0.0"}
            - {name: PASSPORT_HEALTH__PORT, value: "8080"}
            {{- range .env }}
            - {{ toJson . }}
            {{- end }}
          {{- with .root.Values.existingSecret }}
          envFrom:
            - secretRef: {name: {{ . }}}
          {{- end }}
          ports:
            - {name: health, containerPort: 8080}
            {{- range .ports }}
            - {{ toJson . }}
            {{- end }}
          livenessProbe:
            httpGet: {path: /livez, port: health}
            periodSeconds: 10
          readinessProbe:
            httpGet: {path: /readyz, port: health}
            periodSeconds: 10
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          resources: {{- toYaml .root.Values.resources | nindent 12 }}
          volumeMounts:
            - {name: settings, mountPath: /config, readOnly: true}
            - {name: tmp, mountPath: /tmp}
            {{- if .root.Values.caConfigMap }}
            - {name: ca, mountPath: /ca, readOnly: true}
            {{- end }}
      volumes:
        - name: settings
          configMap: {name: {{ .root.Release.Name }}-settings}
        - name: tmp
          emptyDir: {}
        {{- with .root.Values.caConfigMap }}
        - name: ca
          configMap: {name: {{ . }}}
        {{- end }}
      {{- with .root.Values.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.tolerations }}
      tolerations: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.affinity }}
      affinity: {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
