#!/usr/bin/env bash
# Writes the command line of a clone, $1/bin/stt, which needs no installation of the package.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
environment=$(cd "$1" && pwd)
launcher=$environment/bin/stt
# -P: modules in the current folder must not shadow those of the program
{
	echo '#!/usr/bin/env bash'
	printf 'PYTHONPATH=%q${PYTHONPATH:+:$PYTHONPATH} exec %q -P -m internal.cli "$@"\n' "$root" "$environment/bin/python"
} > "$launcher.new"
chmod 755 "$launcher.new"
mv "$launcher.new" "$launcher"
echo "The command line is $launcher. Try: $launcher --help"
echo "To call it stt: export PATH=\"$environment/bin:\$PATH\""
