#!/bin/bash
# Measures every model and kind of engine on a GPU in one call of under eight minutes; needs no ROS and no network.
#
#   scripts/bench_gpu.sh OUTPUT [--minutes M] [--dry-run]    reports, table.md and suite.json in OUTPUT
#   scripts/bench_gpu.sh --pack FOLDER                       on a machine with a network: the small packages that a bare
#                                                            torch and transformers lack, for BENCH_PACKAGES=FOLDER there
#
# PYTHON: the interpreter (default python3). Beside torch, transformers and numpy only pydantic is needed; without OpenCV
# the stages that decode and resize on the host are left out by name.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-python3}

if [[ ${1:-} == --pack ]]; then
    exec "$PYTHON" -m pip install --quiet --upgrade --target "${2:?--pack needs a folder}" pydantic
fi

export PYTHONPATH=$PWD/src/vla_policy_node${BENCH_PACKAGES:+:$BENCH_PACKAGES}${PYTHONPATH:+:$PYTHONPATH}
if ! missing=$("$PYTHON" -c 'import importlib.util as u
print(*(m for m in ("torch", "transformers", "numpy", "pydantic", "yaml", "tokenizers") if u.find_spec(m) is None))'); then
    echo "bench_gpu: $PYTHON does not run; set PYTHON" >&2
    exit 1
fi
if [[ -n $missing ]]; then
    echo "bench_gpu: $PYTHON lacks $missing; pip install them, or use --pack and BENCH_PACKAGES" >&2
    exit 1
fi
exec "$PYTHON" -m vla_policy.bench.suite "$@"
