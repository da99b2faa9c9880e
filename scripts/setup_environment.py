"""Creates, repairs or confirms the project's virtual environments.

    python3 scripts/setup_environment.py runtime        # .venv: what the robot half needs
    python3 scripts/setup_environment.py development    # .venv-dev: that, torch, training, tests

Only the standard library is used. A stamp, written last, holds what an environment was made from;
one without the right stamp is made again, from the packages that were already downloaded.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import vision_msgs_overlay
import wheels

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
PACKAGE = "anydepth_perception"
STAMP_VERSION = 1

# With a ROS distribution, these must be the ones its own extension modules were compiled against.
MODULES_OF_THE_DISTRIBUTION = {"numpy": "numpy", "opencv-python-headless": "cv2", "pyyaml": "yaml"}

# Ubuntu 22.04 has NumPy 1.21, too old for onnx. Within 1.x, a newer one serves what an older one compiled.
OLDEST_NUMPY = (1, 23, 2)
NEWEST_NUMPY_1 = "numpy==1.26.4"


class SetupError(RuntimeError):
    """The set-up cannot go on; the message says in one line what to do."""


@dataclass(frozen=True)
class Environment:
    """One virtual environment: its folder, the locks it is filled from, and modules that must then import."""

    folder: Path
    locks: tuple[str, ...]
    modules: tuple[str, ...]


RUNTIME = Environment(ROOT / ".venv", ("runtime",), ("cv2", "numpy", "onnx", "onnxruntime", "yaml"))
DEVELOPMENT = Environment(
    ROOT / ".venv-dev",
    ("runtime", "training", "development"),
    (*RUNTIME.modules, "torch", "faster_coco_eval", "pytest"),
)
ROS_MODULES = ("rclpy", "sensor_msgs.msg", "diagnostic_msgs.msg", "lifecycle_msgs.msg", "vision_msgs.msg")


def say(text: str) -> None:
    """Print one line of progress."""
    print(f"setup: {text}", flush=True)


def can_import(python: Path | str, *modules: str) -> bool:
    """Tell whether a fresh interpreter imports all modules."""
    command = [str(python), "-c", "import " + ", ".join(modules)]
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0


def sourced_distribution() -> str | None:
    """Name the ROS distribution this shell has sourced, if any.

    Raises:
        SetupError: One is sourced, but this Python or its packages don't serve.
    """
    name = os.environ.get("ROS_DISTRO")
    if not name:
        return None
    if not can_import(sys.executable, "rclpy"):
        raise SetupError(
            f"ROS {name} is sourced but {sys.executable} cannot import rclpy: "
            "run with PYTHON=/usr/bin/python3, or from a shell that sources no ROS distribution"
        )
    if not can_import(sys.executable, "vision_msgs.msg"):
        raise SetupError(f"ROS {name} is sourced but has no vision_msgs: sudo apt install ros-{name}-vision-msgs")
    return name


def check_python(distribution: str | None) -> None:
    """Name what the interpreter lacks.

    Raises:
        SetupError: Python is too old or too new, or cannot make virtual environments.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(f"Python {version} cannot make virtual environments: sudo apt install python{version}-venv")
    if distribution is None:
        machine = f"{platform.system()} {platform.machine()}"
        if machine != "Linux x86_64":
            raise SetupError(f"the ROS wheels are for x86-64 Linux, this is {machine}: source a ROS distribution first")
        if sys.version_info >= (3, 14):
            raise SetupError(f"the ROS wheels are for Python 3.10 to 3.13, this is {version}: give PYTHON=python3.13")


def stamp_of(environment: Environment, locks: list[Path], distribution: str | None) -> str:
    """Describe, as JSON, everything the environment's content follows from."""
    digest = hashlib.sha256()
    for path in [*locks, *vision_msgs_overlay.source_files(ROOT)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    content = {
        "version": STAMP_VERSION,
        "folder": str(environment.folder),
        "python": sys.version,
        "base": sys.base_prefix,
        "ros": distribution or "wheels",
        "locks": digest.hexdigest(),
    }
    return json.dumps(content, indent=2)


def beside_the_distribution(line: str) -> str | None:
    """Adapt a pinned line to a machine with a ROS distribution; None where that provides the package."""
    module = MODULES_OF_THE_DISTRIBUTION.get(line.split("==")[0])
    if module is None or importlib.util.find_spec(module) is None:
        return line
    if module == "numpy":
        version = tuple(int(part) for part in importlib.metadata.version("numpy").split(".")[:3])
        return NEWEST_NUMPY_1 if version < OLDEST_NUMPY else None
    return None


def requirements_of(locks: list[Path], distribution: str | None) -> list[str]:
    """Read the pinned lines of the locks, each once, less what a ROS distribution provides itself."""
    lines: dict[str, None] = {}
    for lock in locks:
        for line in lock.read_text().splitlines():
            wanted = beside_the_distribution(line) if distribution else line
            if wanted and not wanted.startswith("#"):
                lines[wanted] = None
    return list(lines)


def install_requirements(python: Path, lines: list[str], log: Path) -> None:
    """Install exactly the pinned lines that apply to the interpreter.

    Raises:
        SetupError: A package cannot be had or installed.
    """
    folder = CACHE / "wheels" / (sys.implementation.cache_tag or "python")
    lines = wheels.for_this_python(python, lines)
    try:
        wheels.fetch(python, lines, folder, log)
    except wheels.FetchError as error:
        raise SetupError(f"{error}; run the same command again to go on; log: {log}") from None
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    from_folder = ["--no-deps", "--no-index", "--find-links", str(folder), *lines]
    with log.open("ab") as output:
        if subprocess.run([*install, *from_folder], stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
            shutil.rmtree(folder)
            raise SetupError(f"the fetched packages don't install and were dropped; run this again; log: {log}")
        torch = [line for line in lines if line.startswith("torch==")]
        if torch and not can_import(python, "torch"):
            # The index served a build for a GPU, which needs libraries that the lock leaves out.
            say("this build of torch needs more packages")
            if subprocess.run([*install, *torch], stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
                raise SetupError(f"torch's own dependencies failed to install; log: {log}")


def link_project(folder: Path) -> None:
    """Make the package importable from the environment and visible to ament's resource index."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site_packages = folder / "lib" / version / "site-packages"
    shutil.copyfile(ROOT / "scripts/venv_environment.py", site_packages / "anydepth_environment.py")
    # Read before the wheels' own .pth, which re-executes Python with the environment it finds.
    (site_packages / "anydepth_environment.pth").write_text(f"{ROOT}\nimport anydepth_environment\n")
    marker = folder / "share/ament_index/resource_index/packages" / PACKAGE
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()
    share = folder / "share" / PACKAGE
    share.mkdir(parents=True, exist_ok=True)
    for name in ("package.xml", "launch", "config", "models"):
        if not (share / name).is_symlink():
            (share / name).symlink_to(ROOT / name)


@contextmanager
def only_one_setup() -> Iterator[None]:
    """Hold the lock that keeps two set-ups of this project apart."""
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "setup.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another set-up of this project to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def create(environment: Environment, locks: list[Path], distribution: str | None, log: Path) -> None:
    """Make the environment from nothing, replacing what is in its folder."""
    python = environment.folder / "bin/python"
    lines = requirements_of(locks, distribution)
    if distribution is None and not vision_msgs_overlay.cached_prefix(ROOT).is_dir():
        vision_msgs_overlay.check_build_tools()
    log.unlink(missing_ok=True)
    if environment.folder.exists():
        say(f"{environment.folder.name} is incomplete or out of date, making it again")
        shutil.rmtree(environment.folder)
    say(f"creating {environment.folder.name} from {', '.join(lock.name for lock in locks)}")
    options = ["--system-site-packages"] if distribution else []
    with log.open("ab") as output:
        command = [sys.executable, "-m", "venv", *options, str(environment.folder)]
        if subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False).returncode:
            raise SetupError(f"python -m venv failed; log: {log}")
    install_requirements(python, lines, log)
    link_project(environment.folder)
    if distribution is None and not can_import(python, "vision_msgs.msg"):
        prefix = vision_msgs_overlay.cached_prefix(ROOT)
        if not prefix.is_dir():
            say("generating vision_msgs")
            vision_msgs_overlay.build(environment.folder, ROOT, prefix, log)
        vision_msgs_overlay.install_into(environment.folder, prefix)


def set_up(environment: Environment) -> None:
    """Bring the environment to the state its locks describe.

    Raises:
        SetupError: Something is missing or failed; says what.
    """
    distribution = sourced_distribution()
    check_python(distribution)
    names = [*environment.locks, *(() if distribution else ("ros",))]
    locks = [ROOT / "requirements" / f"{name}.txt" for name in names]
    expected = stamp_of(environment, locks, distribution)
    stamp = environment.folder / "anydepth-setup.json"
    python = environment.folder / "bin/python"
    modules = (*ROS_MODULES, *environment.modules)
    with only_one_setup():
        started = time.monotonic()
        if stamp.is_file() and stamp.read_text() == expected:
            link_project(environment.folder)
            if can_import(python, *(module for module in modules if module != "torch")):
                say(f"{environment.folder.name} is ready")
                return
        log = CACHE / f"setup-{environment.folder.name.lstrip('.')}.log"
        create(environment, locks, distribution, log)
        if not can_import(python, *modules):
            raise SetupError(f"{environment.folder.name} cannot import one of {', '.join(modules)}; log: {log}")
        stamp.write_text(expected)
        say(f"{environment.folder.name} is ready ({time.monotonic() - started:.0f} s)")


def clean_own_variables() -> None:
    """Forget what a Python of one of these environments has set for its children."""
    if os.environ.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):
        for name in ("LD_LIBRARY_PATH", "AMENT_PREFIX_PATH"):
            os.environ.pop(name, None)
    os.environ.pop("PYTHONHOME", None)


def main() -> int:
    """Set up the environment named on the command line."""
    parser = argparse.ArgumentParser(description="Create, repair or confirm a virtual environment of this project.")
    parser.add_argument("kind", choices=("runtime", "development"))
    kind = parser.parse_args().kind
    clean_own_variables()
    try:
        set_up(RUNTIME if kind == "runtime" else DEVELOPMENT)
    except (SetupError, vision_msgs_overlay.OverlayError) as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("setup: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
