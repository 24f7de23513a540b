#!/bin/sh
set -eu
for module; do :; done
grep -q -F "$module" /opt/minio.Dockerfile
install -D /opt/minio /go/bin/minio
