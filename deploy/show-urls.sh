#!/usr/bin/env bash
cat <<'TEXT'
API                http://127.0.0.1:8000/docs   (needs the API_KEY in deploy/.env)
RabbitMQ           http://127.0.0.1:15672   (user stt, password in deploy/.env)
MinIO's console    http://127.0.0.1:9001    (user stt, password in deploy/.env)
TEXT
