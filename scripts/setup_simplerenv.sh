#!/usr/bin/env bash
# In: a checkout of simpler-env/SimplerEnv (argument or SIMPLER_ROOT). Out: an environment of its own that plays it, with
# what it needs from PyPI; then a test of it. Needs no root rights and downloads no data.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
simulator=(sapien==2.2.2 numpy==1.26.4 gymnasium==0.28.1 opencv-python-headless==4.11.0.86 scipy==1.17.1
  transforms3d==0.4.2 trimesh==5.2.0 ruckig==0.19.4 imageio h5py tqdm)
project=(av matplotlib msgpack pydantic pyyaml rich websockets)
twins=(mani-skill==3.0.1)

usage() {
  cat <<'TEXT'
usage: scripts/setup_simplerenv.sh --venv DIR [--cpu] [--ros] [CHECKOUT]
       scripts/setup_simplerenv.sh --twins
  CHECKOUT    checkout of https://github.com/simpler-env/SimplerEnv with its submodule ManiSkill2_real2sim
              (default: $SIMPLER_ROOT)
  --venv DIR  make the environment there: SAPIEN 2 with numpy 1.26, this project's simulators and evaluation, without
              torch and ROS; a policy is reached by --policy ws://…
  --cpu       for a machine without a GPU: also build a Vulkan driver that draws on the CPU (eval/simpler/software_vulkan.c)
  --ros       let the environment see the packages of the project's (.venv): its own come first. With it DIR/bin/python
              also runs sim_node: ros2 launch vla_policy bringup.launch.py sim:=simpler sim_python:=DIR/bin/python …
  --twins     no SimplerEnv: install ManiSkill3, which has twins of WidowX's tasks, into the project's environment
Environment: PYTHON (interpreter for --venv; SAPIEN 2 has wheels up to Python 3.11, this project needs 3.11).
TEXT
}

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

venv="" cpu="" ros="" only_twins="" checkout=${SIMPLER_ROOT:-}
while (($#)); do
  case $1 in
    --venv) [[ $# -ge 2 ]] || die "--venv: got no folder"; venv=$2; shift 2 ;;
    --cpu) cpu=1; shift ;;
    --ros) ros=1; shift ;;
    --twins) only_twins=1; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; die "got '$1', expected --venv DIR, --cpu, --ros, --twins or a checkout" ;;
    *) checkout=$1; shift ;;
  esac
done

project_python() {
  if [[ -x $root/.venv/bin/python ]]; then echo "$root/.venv/bin/python"
  elif [[ -n ${VIRTUAL_ENV:-} ]]; then echo "$VIRTUAL_ENV/bin/python"
  else die "got no environment, expected the project's: ./run setup"; fi
}

if [[ -n $only_twins ]]; then
  python=$(project_python)
  say "installing ${twins[*]} for $python"
  "$python" -m pip install --quiet -c "$root/requirements/base.txt" -c "$root/requirements/constraints.txt" "${twins[@]}"
  say "downloading is yours: $python -m mani_skill.utils.download_asset bridge_v2_real2sim widowx250s"
  say "then: $python $root/eval/simpler/env_test.py --task widowx_stack_cube/twins"
  exit 0
fi

fetch="git clone --recurse-submodules https://github.com/simpler-env/SimplerEnv.git"
[[ -n $checkout ]] || die "got no checkout of SimplerEnv. Clone one anywhere, then name it:
    $fetch ~/SimplerEnv
    scripts/setup_simplerenv.sh --venv .venv-simpler ~/SimplerEnv"
[[ -d $checkout ]] || die "$checkout: no such folder. Clone SimplerEnv there: $fetch $checkout"
checkout=$(cd -- "$checkout" && pwd)
[[ -d $checkout/simpler_env ]] || die "$checkout is no checkout of simpler-env/SimplerEnv. Clone it: $fetch DIR"
real2sim=$checkout/ManiSkill2_real2sim
[[ -f $real2sim/mani_skill2_real2sim/envs/custom_scenes/base_env.py ]] ||
  die "$real2sim is empty. Get the submodule: git -C $checkout submodule update --init --recursive"
[[ -f $real2sim/data/custom/info_pick_custom_v0.json ]] ||
  die "$real2sim/data is not whole. Restore it: git -C $real2sim checkout HEAD -- data"
[[ -n $venv ]] || die "SAPIEN 2 needs numpy 1.26, the project has a newer one: name an environment of its own, as
    scripts/setup_simplerenv.sh --venv .venv-simpler $checkout"

[[ -x $venv/bin/python ]] || "${PYTHON:-python3.11}" -m venv "$venv" ||
  die "no environment could be made at $venv with ${PYTHON:-python3.11}; install Python 3.11 or set PYTHON"
venv=$(cd -- "$venv" && pwd)
python=$venv/bin/python
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[[ $version == 3.11 ]] ||
  die "$venv is of Python $version; SAPIEN 2 has wheels up to 3.11 and this project needs 3.11 or later." \
    "Make another: PYTHON=python3.11 scripts/setup_simplerenv.sh --venv .venv-simpler $checkout"

say "installing into $venv"
"$python" -m pip install --quiet "${simulator[@]}" "${project[@]}"
"$python" -m pip install --quiet --no-deps --editable "$root/src/vla_policy_node" --editable "$root/src/sim_bridges"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
if [[ -n $ros ]]; then
  "$(project_python)" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' >"$site/of_the_project.pth"
fi

if [[ -n $cpu ]]; then
  driver=$venv/lib/software_vulkan.so
  "${CC:-cc}" -O1 -shared -fPIC -fvisibility=hidden "$root/eval/simpler/software_vulkan.c" -o "$driver" -ldl ||
    die "the driver could not be built; install a C compiler (apt install gcc libc6-dev) or set CC"
  printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "%s", "api_version": "1.3.0"}}\n' "$driver" \
    >"$venv/software_vulkan.json"
  export VK_ICD_FILENAMES=$venv/software_vulkan.json
  say "without a GPU say in every shell: export VK_ICD_FILENAMES=$VK_ICD_FILENAMES SIMPLER_SHADER=ibl"
fi

say "testing"
SIMPLER_ROOT=$checkout "$python" -W ignore "$root/eval/simpler/env_test.py" --output "$root/outputs/simpler_env_test.png"
say "SimplerEnv works. In every shell: export SIMPLER_ROOT=$checkout; evaluate with $python -m sim_bridges.evaluate --sim simpler"
