#!/bin/sh
# make-venv.sh FOLDER [PYTHON]: makes a virtual environment with the first suitable Python.
# It runs each candidate, because version managers put names on PATH that do not work.
set -eu
folder=$1
shift
too_old=""
no_venv=""
for python in "${@:-}" python3.13 python3.12 python3.11 python3; do
    [ -n "$python" ] || continue
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        too_old="$python is $version"
        continue
    fi
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        no_venv=$version
        continue
    fi
    echo "making $folder with Python $version"
    exec "$python" -m venv --clear "$folder"
done
{
    if [ -n "$no_venv" ]; then
        echo "Python $no_venv is here, but without its venv module."
        echo "On Debian and Ubuntu: sudo apt-get install python$no_venv-venv"
    else
        echo "notifier needs Python 3.11 or newer${too_old:+, and $too_old}."
        echo "Install it (Debian: sudo apt-get install python3 python3-venv; macOS: brew install python),"
        echo "or name one: make PYTHON=/path/to/python3.12 ..."
    fi
} >&2
exit 1
