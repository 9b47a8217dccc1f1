"""In: this folder, with launch/ and config/ linked in.

Out: the ROS package vla_policy; `pip install` works too, without ROS.
"""

from pathlib import Path

from setuptools import find_packages, setup

NAME = "vla_policy"
SHARE = Path("share") / NAME


def shared_files() -> list[tuple[str, list[str]]]:
    """Launch files, contracts, model files and bundles, folder by folder, for share/vla_policy."""
    files = [path for top in ("launch", "config", "policies") for path in sorted(Path(top).rglob("*"))
             if path.is_file() and "__pycache__" not in path.parts]
    return [(str(SHARE / folder), [str(path) for path in files if path.parent == folder])
            for folder in sorted({path.parent for path in files})]


setup(
    name=NAME,
    version="0.1.0",
    description="Robot policies from vision-language models",
    license="Apache-2.0",
    maintainer="VLA policy maintainers",
    maintainer_email="maintainers@example.com",
    packages=find_packages(include=["vla_policy", "vla_policy.*", "vla_policy_node", "vla_policy_node.*"]),
    python_requires=">=3.11,<3.14",
    install_requires=["backports.zstd", "huggingface-hub", "lz4", "msgpack", "numpy", "opencv-python-headless",
                      "pillow", "psutil", "pydantic>=2", "pyyaml", "rich", "rosbags", "safetensors", "tokenizers",
                      "torch", "transformers>=5", "websockets>=15"],
    extras_require={"plot": ["matplotlib"], "ray": ["ray[serve]"]},  # plots of bench; a policy server on a cluster
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (str(SHARE), ["package.xml"]),
        *shared_files(),
    ],
    entry_points={"console_scripts": [
        "bench = vla_policy.bench.command:main",
        "bench_recorder = vla_policy_node.bench_recorder:main",
        "console = vla_policy_node.console:main",
        "policy_node = vla_policy_node.policy_node:main",
        "guard_node = vla_policy_node.guard_node:main",
        "replay = vla_policy_node.replay_node:main",
        "recorder_node = vla_policy_node.recorder_node:main",
        "recover_episode = vla_policy.recorder.recover:main",
        "teleop_node = vla_policy_node.teleop_node:main",
        "serve = vla_policy.remote.serve:main",
        "bench_node = vla_policy_node.bench_node:main",
        "transport_check = vla_policy_node.transport_check:main",
    ], "vla_policy.bench": ["ros = vla_policy_node.bench_node:section"]},
    zip_safe=False,
)
