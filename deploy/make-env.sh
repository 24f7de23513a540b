#!/usr/bin/env bash
# Generate passwords and the first API key for the containers, once, in a file that only its owner can read.
set -euo pipefail
file="$(dirname "$0")/.env"
secret() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
umask 077
touch "$file"
chmod 600 "$file"
# add a name that is missing, as in a file of an earlier version, or has no value
add() { grep -q "^$1=." "$file" || echo "$1=$2" >>"$file"; }
add POSTGRES_PASSWORD "$(secret)"
add RABBITMQ_PASSWORD "$(secret)"
add MINIO_ACCESS_KEY stt
add MINIO_SECRET_KEY "$(secret)"
add SECRET_KEY "$(secret)"
add GRAFANA_PASSWORD "$(secret)"
add API_KEY "stt_$(secret | cut -c1-16)_$(secret)"
# labels of the image; here, so that Compose called without make builds the same one
label() {
	sed -i "/^$1=/d" "$file"
	echo "$1=$2" >>"$file"
}
root=$(dirname "$0")/..
label STT_VERSION "$(sed -n 's/^VERSION = "\(.*\)"/\1/p' "$root/core/version.py")"
label STT_REVISION "$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
echo "Passwords and the first API key are in deploy/.env"
