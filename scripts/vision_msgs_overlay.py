"""Builds the vision_msgs overlay against the ROS wheels of a virtual environment, once, and installs it."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCE = Path("overlay/vision_msgs")
RESOURCE_INDEX = "share/ament_index/resource_index"
BUILD_TOOLS = (("CC", "cc", "C compiler"), ("CXX", "c++", "C++ compiler"), ("MAKE", "make", "make"))


class OverlayError(RuntimeError):
    """The overlay cannot be built; the message says in one line what is missing or where the log is."""


def source_files(root: Path) -> list[Path]:
    """List the files the generated package depends on, in a fixed order."""
    source = root / SOURCE
    return [source / "CMakeLists.txt", source / "package.xml", *sorted((source / "msg").glob("*.msg"))]


def cached_prefix(root: Path) -> Path:
    """Name the folder that holds the build for these sources, wheels and this Python."""
    digest = hashlib.sha256(f"{platform.machine()} {sys.version}".encode())
    for path in [*source_files(root), root / "requirements/ros.txt", root / "requirements/runtime.txt"]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return root / ".cache" / "vision_msgs" / digest.hexdigest()[:16]


def check_build_tools() -> None:
    """Name the first missing build tool.

    cmake itself comes with the wheels.

    Raises:
        OverlayError: A compiler, make or Python's headers are missing.
    """
    for variable, default, what in BUILD_TOOLS:
        command = os.environ.get(variable, default).split()[0]
        if shutil.which(command) is None:
            raise OverlayError(f"no {what} ({command!r} is not on PATH): sudo apt install build-essential")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        raise OverlayError(f"the headers of {python} are missing (Python.h): sudo apt install {python}-dev")


def build(environment: Path, root: Path, prefix: Path, log: Path) -> None:
    """Generate and compile the messages.

    Args:
        environment: A virtual environment with the ROS wheels in it.
        root: The project's root folder.
        prefix: The folder to make; it appears whole or not at all.
        log: File the output of the build is appended to.

    Raises:
        OverlayError: A build tool is missing or the build fails.
    """
    check_build_tools()
    prefix.parent.mkdir(parents=True, exist_ok=True)
    variables = {
        **os.environ,
        "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": str(environment),
        "CMAKE_PREFIX_PATH": str(environment),
    }
    # A second make's flags and job server would reach CMake's own make.
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
        variables.pop(name, None)
    with tempfile.TemporaryDirectory(dir=prefix.parent, prefix="build-") as folder:
        staging = Path(folder, "prefix")
        cmake = str(environment / "bin/cmake")
        configure = [
            cmake,
            *("-S", str(root / SOURCE), "-B", str(Path(folder, "build")), "-G", "Unix Makefiles"),
            f"-DCMAKE_INSTALL_PREFIX={staging}",
            f"-DPython3_EXECUTABLE={environment / 'bin/python'}",
            "-DPython3_FIND_VIRTUALENV=ONLY",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DBUILD_TESTING=OFF",
        ]
        compile_all = [cmake, "--build", str(Path(folder, "build")), "--parallel", str(os.cpu_count() or 1)]
        install = [cmake, "--install", str(Path(folder, "build"))]
        with log.open("ab") as output:
            for command in (configure, compile_all, install):
                done = subprocess.run(command, env=variables, stdout=output, stderr=subprocess.STDOUT, check=False)
                if done.returncode:
                    raise OverlayError(f"generating vision_msgs failed; the reason is at the end of {log}")
        staging.rename(prefix)


def install_into(environment: Path, prefix: Path) -> None:
    """Copy a finished build into an environment.

    Left out is what names the folder of the build or only serves to compile against the package.
    """
    for folder in ("lib", f"{RESOURCE_INDEX}/packages", f"{RESOURCE_INDEX}/rosidl_interfaces"):
        shutil.copytree(prefix / folder, environment / folder, dirs_exist_ok=True)
    share = environment / "share/vision_msgs"
    shutil.copytree(prefix / "share/vision_msgs/msg", share / "msg", dirs_exist_ok=True)
    shutil.copy2(prefix / "share/vision_msgs/package.xml", share)
