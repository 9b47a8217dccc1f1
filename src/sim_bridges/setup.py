"""The ament_python package `sim_bridges`."""

from setuptools import find_packages, setup

setup(
    name="sim_bridges",
    version="0.1.0",
    packages=find_packages(include=["sim_bridges", "sim_bridges.*"]),
    package_data={"sim_bridges.tabletop": ["scene.xml"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/sim_bridges"]),
        ("share/sim_bridges", ["package.xml"]),
    ],
    install_requires=["setuptools", "av", "matplotlib", "mujoco", "numpy", "opencv-python-headless", "pyyaml", "rich"],
    zip_safe=False,
    author="VLA policy maintainers",
    maintainer="VLA policy maintainers",
    maintainer_email="maintainers@example.com",
    description="Simulators behind one protocol, as a library and as a ROS node; the evaluation of policies in them.",
    license="Apache-2.0",
    entry_points={"console_scripts": [
        "agreement = sim_bridges.agreement:main",
        "evaluate = sim_bridges.evaluate:main",
        "real_eval = sim_bridges.real_eval:main",
        "sim_node = sim_bridges.sim_node:main",
        "data_loop = sim_bridges.data_loop:main",
        "scripted_operator = sim_bridges.operator.node:main",
    ]},
)
