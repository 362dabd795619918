#!/bin/sh
# lock.sh [--upgrade]: pins every dependency, with the hashes of its files for all platforms.
# It runs uv from its own environment: the project itself does not need uv.
set -eu
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT INT TERM
sh requirements/make-venv.sh "$tools/venv"
"$tools/venv/bin/python" -m pip --disable-pip-version-check -qq install uv

# compile OUTPUT ARGUMENT...
# The files name no index: pip uses the one that the machine is set up for.
compile() {
    output=requirements/$1
    shift
    "$tools/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
        --output-file "$output" "$@"
    echo "$output: $(grep -c == "$output") packages"
}

# runtime.txt constrains the other files, so production runs the same versions as the tests and the demo.
printf 'hatchling\neditables\n' > "$tools/build.in"
compile runtime.txt pyproject.toml --extra all "$@"
compile production.txt pyproject.toml --extra web --extra flower --extra otel --constraint requirements/runtime.txt
compile dev.txt pyproject.toml --extra all --group dev --constraint requirements/runtime.txt "$@"
compile bench.txt pyproject.toml --extra all --group bench --constraint requirements/dev.txt "$@"
compile docs.txt --group docs --constraint requirements/dev.txt "$@"
compile manifests.txt --group manifests --constraint requirements/dev.txt "$@"
compile build.txt "$tools/build.in" --constraint requirements/dev.txt
