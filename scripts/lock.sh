#!/bin/sh
# Resolve the locks anew. Needs uv, and fetches it into a folder of its own where there is none.
set -eu
cd "$(dirname "$0")/.."
if ! uv=$(command -v uv); then
    python3 -m venv .venv-lock
    .venv-lock/bin/pip install -qq uv
    uv=.venv-lock/bin/uv
fi
compile() {
    lock=requirements/$1.lock
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
        --custom-compile-command "make lock" --upgrade --output-file "$lock" "$@"
    # The one platform that the locks are for (pyproject.toml) needn't stand on every line.
    sed -i "s/ ; platform_machine == 'x86_64' and sys_platform == 'linux'//; s/ and platform_machine == 'x86_64' and sys_platform == 'linux'//" "$lock"
}
compile cpu pyproject.toml --extra cpu --extra documents requirements/cpu.in --override requirements/cpu.override
compile gpu pyproject.toml --extra gpu --extra documents requirements/gpu.in --override requirements/gpu.override
compile dev --group dev --constraint requirements/cpu.lock
# Without what the device's lock has already, which it would change to this one's versions.
compile train pyproject.toml --extra train --constraint requirements/cpu.lock --override requirements/cpu.override \
    $(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package \1/p' requirements/cpu.lock)
rm -rf .venv-lock
