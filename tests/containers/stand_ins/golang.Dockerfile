# `go install` of the MinIO that deploy/minio.Dockerfile names installs the program built before, from the same module
FROM debian:bookworm-slim
COPY minio minio.Dockerfile /opt/
COPY go.sh /usr/local/bin/go
