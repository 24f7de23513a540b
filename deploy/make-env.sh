#!/usr/bin/env bash
# Passwords for the containers, made once, readable by their owner alone.
set -euo pipefail
file="$(dirname "$0")/.env"
[ ! -e "$file" ] || exit 0
secret() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
umask 077
cat >"$file" <<EOF
POSTGRES_PASSWORD=$(secret)
RABBITMQ_PASSWORD=$(secret)
MINIO_ACCESS_KEY=stt
MINIO_SECRET_KEY=$(secret)
SECRET_KEY=$(secret)
API_KEY=stt_$(secret | cut -c1-16)_$(secret)
EOF
echo "Passwords and the first API key are in deploy/.env"
