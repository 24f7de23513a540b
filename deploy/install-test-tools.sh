#!/usr/bin/env bash
# Install what the tests need on this machine: PostgreSQL, PgBouncer, RabbitMQ, ffmpeg, espeak-ng, faketime, curl, Prometheus, Chromium, MinIO.
# Packages are installed as root or with passwordless sudo; otherwise the command to run is printed. Tests that need a
# missing server are skipped, or fail if CI is set. No system service is started.
set -euo pipefail

MINIO_MODULE=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
BIN="${HOME:-/tmp}/.cache/async-stt/bin"
# shellcheck source=deploy/packages.sh
. "$(dirname "$0")/packages.sh"

missing_packages() {
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
	[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || echo pgbouncer
	[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || command -v rabbitmq-server >/dev/null || echo rabbitmq-server
	command -v ffmpeg >/dev/null || echo ffmpeg
	command -v espeak-ng >/dev/null || echo espeak-ng
	command -v faketime >/dev/null || echo faketime
	command -v curl >/dev/null || echo curl
	command -v promtool >/dev/null || echo prometheus
	# Ubuntu's package of this name is a snap, which the tests of the page cannot drive
	command -v chromium >/dev/null || printf "%s\n" chromium fonts-inter
}

build_minio() {
	local work go
	work=$(mktemp -d)
	# shellcheck disable=SC2064
	trap "chmod -R u+w '$work' 2>/dev/null; rm -rf '$work'" EXIT
	echo "Building MinIO from source, once; about six minutes on two cores …"
	go=$(go_program "$work")
	mkdir -p "$BIN"
	(
		while sleep 20; do echo "  still building MinIO ($(du -sm "$work" 2>/dev/null | cut -f1) MB of sources and objects)"; done
	) &
	local ticker=$! status=0
	env CGO_ENABLED=0 GOFLAGS=-modcacherw GOTOOLCHAIN=auto GOMODCACHE="$work/mod" GOCACHE="$work/cache" GOBIN="$work/bin" \
		GOPATH="$work/go" TMPDIR="$work" "$go" install -trimpath -ldflags '-s -w' "$MINIO_MODULE" >"$work/log" 2>&1 || status=$?
	kill "$ticker" 2>/dev/null || true
	if [ "$status" != 0 ]; then
		tail -20 "$work/log"
		echo "MinIO could not be built."
		return
	fi
	mv "$work/bin/minio" "$BIN/minio"
	echo "MinIO is at ~/.cache/async-stt/bin/minio"
}

mapfile -t packages < <(missing_packages)
[ "${#packages[@]}" = 0 ] || install_packages "${packages[@]}"
[ -x "$BIN/minio" ] || command -v minio >/dev/null || build_minio
