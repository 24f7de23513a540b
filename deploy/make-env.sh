#!/usr/bin/env bash
# Passwords and the first API key for the containers, each made once, readable by their owner alone.
set -euo pipefail
file="$(dirname "$0")/.env"
secret() { head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n'; }
umask 077
touch "$file"
chmod 600 "$file"
# a file of an older version gets what it lacks, also where the name stands without a value
add() { grep -q "^$1=." "$file" || echo "$1=$2" >>"$file"; }
add POSTGRES_PASSWORD "$(secret)"
add RABBITMQ_PASSWORD "$(secret)"
add MINIO_ACCESS_KEY stt
add MINIO_SECRET_KEY "$(secret)"
add SECRET_KEY "$(secret)"
add API_KEY "stt_$(secret | cut -c1-16)_$(secret)"
echo "Passwords and the first API key are in deploy/.env"
