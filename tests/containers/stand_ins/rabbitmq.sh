#!/bin/sh
# Like the image's entry point: give the volume to the server's user, and run as that user.
set -eu
if [ "$(id -u)" = 0 ]; then
	chown -R rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
	exec setpriv --reuid rabbitmq --regid rabbitmq --clear-groups "$0" "$@"
fi
exec "$@"
