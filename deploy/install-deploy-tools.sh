#!/usr/bin/env bash
# Install what tests/deploy needs on this machine: Helm, built from its Go module, the schemas of Kubernetes and of the
# operators that the chart writes objects for, taken from their Go modules, and systemd-analyze. Everything but
# systemd-analyze is kept in ~/.cache/async-stt. Go verifies the modules with its checksum database.
set -euo pipefail

HELM=helm.sh/helm/v3/cmd/helm@v3.19.5
CACHE="${HOME:-/tmp}/.cache/async-stt"
BIN=$CACHE/bin
# module@version file, one for each schema; a change of the list is a new folder
SCHEMAS='k8s.io/kubernetes@v1.34.4 api/openapi-spec/swagger.json
github.com/kedacore/keda/v2@v2.20.2 config/crd/bases/keda.sh_scaledobjects.yaml
github.com/kedacore/keda/v2@v2.20.2 config/crd/bases/keda.sh_triggerauthentications.yaml
github.com/external-secrets/external-secrets@v1.3.2 config/crds/bases/external-secrets.io_externalsecrets.yaml
github.com/prometheus-operator/prometheus-operator@v0.85.0 example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml'
# shellcheck source=deploy/packages.sh
. "$(dirname "$0")/packages.sh"

in_new_folder() {
	work=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "chmod -R u+w '$work' 2>/dev/null; rm -rf '$work'" EXIT
	export GOFLAGS=-modcacherw GOTOOLCHAIN=auto GOMODCACHE="$work/mod" GOCACHE="$work/cache" GOBIN="$work/bin" \
		GOPATH="$work/go" TMPDIR="$work" CGO_ENABLED=0
}

build_helm() (
	in_new_folder
	echo "Building Helm from source, once; about three minutes on two cores …"
	if "$(go_program "$work")" install -trimpath -ldflags '-s -w' "$HELM" >"$work/log" 2>&1; then
		install -D -m 755 "$work/bin/helm" "$BIN/helm"
	else
		tail -20 "$work/log"
		echo "Helm could not be built."
	fi
)

# go mod download unpacks a module; only the schemas of it are kept
fetch_schemas() (
	in_new_folder
	echo "Fetching the schemas of Kubernetes, once (50 MB) …"
	go=$(go_program "$work")
	mkdir "$work/schemas"
	while read -r module file; do
		if ! "$go" mod download "$module" >>"$work/log" 2>&1; then
			tail -5 "$work/log"
			echo "The schemas could not be fetched."
			return
		fi
		cp "$work/mod/$module/$file" "$work/schemas/"
	done <<<"$SCHEMAS"
	mkdir -p "$CACHE"
	rm -rf "$CACHE"/schemas-*
	mv "$work/schemas" "$schemas"
)

schemas=$CACHE/schemas-$(sha256sum <<<"$SCHEMAS" | cut -c1-12)
command -v systemd-analyze >/dev/null || install_packages systemd
[ -x "$BIN/helm" ] || build_helm
[ -d "$schemas" ] || fetch_schemas
