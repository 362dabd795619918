#!/bin/sh
# lock.sh [--upgrade]: pins every dependency, with the hashes of its files for all platforms.
# uv does it, from an environment of its own: the project itself needs no uv.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT INT TERM
sh requirements/make-venv.sh "$tools/venv"
"$tools/venv/bin/python" -m pip --disable-pip-version-check -qq install uv

# compile OUTPUT ARGUMENT...
# No index host in the files: whoever installs uses the one that the machine is set up for.
compile() {
    output=requirements/$1
    shift
    "$tools/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
        --output-file "$output" "$@"
    echo "$output: $(grep -c == "$output") packages"
}

# Each within the versions of the first: what runs in production is what the tests and the demo run.
printf 'hatchling\neditables\n' > "$tools/build.in"
compile runtime.txt pyproject.toml --extra all "$@"
compile production.txt pyproject.toml --extra web --extra flower --extra otel --constraint requirements/runtime.txt
compile dev.txt pyproject.toml --extra all --group dev --constraint requirements/runtime.txt "$@"
compile bench.txt pyproject.toml --extra all --group bench --constraint requirements/dev.txt "$@"
compile docs.txt --group docs --constraint requirements/dev.txt "$@"
compile build.txt "$tools/build.in" --constraint requirements/dev.txt
