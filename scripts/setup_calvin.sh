#!/usr/bin/env bash
# In: a checkout of mees/calvin (argument or CALVIN_ROOT). Out: what it needs from PyPI in the project's environment,
# or in one of its own (--venv DIR); then a test of it. Needs no root rights and downloads no data set.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
packages=(pybullet==3.2.7 gym==0.26.2 hydra-core==1.3.8 hydra-colorlog==1.2.0 omegaconf==2.3.1
  numpy-quaternion==2024.0.13 gitpython==3.2.1
  opencv-python-headless scipy==1.17.1 cloudpickle==3.1.2)

usage() {
  cat <<'TEXT'
usage: scripts/setup_calvin.sh [--venv DIR] [CHECKOUT]
  CHECKOUT    checkout of https://github.com/mees/calvin with its submodule calvin_env (default: $CALVIN_ROOT)
  --venv DIR  make an environment there instead of using the project's (.venv, or the active one). It gets this
              project's simulators and evaluation too, without torch and ROS: a policy is reached by --policy ws://…
Environment: PYTHON (interpreter for --venv; pybullet has wheels for Python 3.10 and 3.11, this project needs 3.11).
TEXT
}

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

venv="" checkout=${CALVIN_ROOT:-}
while (($#)); do
  case $1 in
    --venv) [[ $# -ge 2 ]] || die "--venv: got no folder"; venv=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "got '$1', expected --venv DIR or a checkout" ;;
    *) checkout=$1; shift ;;
  esac
done

fetch="git clone --recurse-submodules https://github.com/mees/calvin.git"
[[ -n $checkout ]] || die "got no checkout of CALVIN. Clone one anywhere, then name it:
    $fetch ~/calvin
    scripts/setup_calvin.sh ~/calvin"
[[ -d $checkout ]] || die "$checkout: no such folder. Clone CALVIN there: $fetch $checkout"
checkout=$(cd -- "$checkout" && pwd)
[[ -f $checkout/calvin_models/conf/annotations/new_playtable_validation.yaml ]] ||
  die "$checkout is no checkout of mees/calvin (it has no calvin_models). Clone it: $fetch DIR"
[[ -f $checkout/calvin_env/calvin_env/envs/play_table_env.py ]] ||
  die "$checkout/calvin_env is empty. Get the submodule: git -C $checkout submodule update --init calvin_env"
[[ -f $checkout/calvin_env/data/calvin_table_D/urdf/calvin_table_D.urdf ]] ||
  die "$checkout/calvin_env/data is not whole. Restore it: git -C $checkout/calvin_env checkout -- data"

own=()
if [[ -n $venv ]]; then
  [[ -x $venv/bin/python ]] || "${PYTHON:-python3.11}" -m venv "$venv" ||
    die "no environment could be made at $venv with ${PYTHON:-python3.11}; install Python 3.11 or set PYTHON"
  own=(av matplotlib msgpack pydantic pyyaml rich websockets)
elif [[ -x $root/.venv/bin/python ]]; then
  venv=$root/.venv
elif [[ -n ${VIRTUAL_ENV:-} ]]; then
  venv=$VIRTUAL_ENV
else
  die "got no environment, expected the project's: ./run setup, or name one of its own: --venv DIR"
fi
python=$venv/bin/python

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[[ $version == 3.11 ]] ||
  die "$venv is of Python $version; pybullet has wheels for 3.10 and 3.11 and this project needs 3.11 or later." \
    "Make one for CALVIN: PYTHON=python3.11 scripts/setup_calvin.sh --venv .venv-calvin $checkout"

say "installing into $venv"
# The project's pins hold: what is there already stays as it is.
"$python" -m pip install --quiet -c "$root/requirements/base.txt" -c "$root/requirements/constraints.txt" \
  "${packages[@]}" ${own[@]+"${own[@]}"}
if ((${#own[@]})); then
  "$python" -m pip install --quiet --no-deps --editable "$root/src/vla_policy_node" --editable "$root/src/sim_bridges"
fi

say "testing"
paths=$root/src/vla_policy_node:$root/src/sim_bridges
CALVIN_ROOT=$checkout PYTHONPATH=$paths${PYTHONPATH:+:$PYTHONPATH} "$python" -W ignore "$root/eval/calvin/env_test.py" \
  --output "$root/outputs/calvin_env_test.png"
say "CALVIN works. Name it in every shell: export CALVIN_ROOT=$checkout"
