"""Installs the package the way ament_python expects: marker, share/ and lib/anydepth_perception."""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "anydepth_perception"
SHARE = f"share/{PACKAGE}"


def shared_files(*folders: str) -> list[tuple[str, list[str]]]:
    """List every file below the folders with the place under share/ it is installed to.

    Training weights stay behind: a robot runs the bundles that were exported from them.
    """
    files = sorted(path for folder in folders for path in Path(folder).rglob("*") if path.is_file())
    wanted = [path for path in files if "__pycache__" not in path.parts and path.suffix != ".safetensors"]
    return [(f"{SHARE}/{path.parent}", [str(path)]) for path in wanted]


setup(
    name=PACKAGE,
    version="0.1.0",
    description="Object detection for ROS 2 with a depth that follows the deadline from frame to frame",
    license="Apache-2.0",
    maintainer="AnyDepth Perception maintainers",
    maintainer_email="maintainers@users.noreply.anydepth.example",
    python_requires=">=3.10",
    packages=find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (SHARE, ["package.xml"]),
        *shared_files("launch", "config", "models"),
    ],
    install_requires=["setuptools"],
    # colcon test takes pytest where the extra `test` has it.
    extras_require={"test": ["pytest"], "bags": ["rosbags"], "openvino": ["openvino"], "plots": ["matplotlib"]},
    zip_safe=False,
    entry_points={
        "console_scripts": [
            f"detector_node = {PACKAGE}.ros.__main__:main",
            f"camera = {PACKAGE}.tools.camera:main",
            f"build = {PACKAGE}.tools.build:main",
            f"profile = {PACKAGE}.tools.profile:main",
            f"quantize = {PACKAGE}.tools.quantize:main",
            f"bench = {PACKAGE}.tools.bench:main",
            f"demo = {PACKAGE}.tools.demo:main",
        ],
    },
)
