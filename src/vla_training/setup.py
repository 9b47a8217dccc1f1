"""The ament_python package `vla_training`; `pip install` works too, without ROS."""

from setuptools import find_packages, setup

setup(
    name="vla_training",
    version="0.1.0",
    packages=find_packages(include=["vla_training", "vla_training.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/vla_training"]),
        ("share/vla_training", ["package.xml"]),
    ],
    python_requires=">=3.11,<3.14",
    install_requires=[
        "setuptools",
        "accelerate>=1.15,<2",
        "av",
        "backports.zstd",
        "google-crc32c",
        "jinja2",
        "matplotlib",
        "numpy",
        "opencv-python-headless",
        "peft>=0.19",
        "psutil",
        "pyarrow",
        "pydantic>=2",
        "pyyaml",
        "rich",
        "rosbags",
        "safetensors",
        "tensorboard",
        "torch",
    ],
    extras_require={
        "deepspeed": ["deepspeed"],  # for `deepspeed` in a training file, on machines with NVIDIA GPUs
        "four_bit": ["bitsandbytes>=0.50"],  # QLoRA, on a machine with an NVIDIA GPU
        "wandb": ["wandb"],  # for `watch.wandb` in a training file
        "rlds": ["tensorflow-cpu", "tensorflow-datasets"],  # for tfds itself; the rlds reader needs neither
    },
    zip_safe=False,
    author="VLA policy maintainers",
    maintainer="VLA policy maintainers",
    maintainer_email="maintainers@example.com",
    description="Demonstrations in, policy bundles out: collecting, grounding, training.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "collect = vla_training.tabletop.collect:main",
            "scenes = vla_training.tabletop.scenes:main",
            "pretrain = vla_training.tabletop.pretrain:main",
            "convert = vla_training.convert:main",
            "stats = vla_training.stats:main",
            "bench_finetune = vla_training.bench_finetune:main",
            "bench_loader = vla_training.bench_loader:main",
            "train = vla_training.train:main",
            "finetune = vla_training.finetune:main",
            "inspect = vla_training.inspect:main",
            "open_loop = vla_training.open_loop:main",
        ]
    },
)
