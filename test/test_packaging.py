"""The package installs the way a ROS workspace expects it, and names what it depends on."""

from __future__ import annotations

import ast
import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "anydepth_perception"
EXECUTABLES = ("detector_node", "camera", "build", "profile", "quantize", "bench", "demo")

# Modules whose rosdep key is not their own name; None where rosdep has no key (docs/installation.md).
ROSDEP_KEYS = {
    "numpy": "python3-numpy",
    "cv2": "python3-opencv",
    "psutil": "python3-psutil",
    "yaml": "python3-yaml",
    "google": "python3-protobuf",
    "onnxruntime": "python3-onnxruntime-pip",
    "onnx": None,
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install a copy of the package as colcon does and return the prefix."""
    work = tmp_path_factory.mktemp("packaging")
    source = work / "source"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "package.xml"):
        shutil.copy(ROOT / name, source)
    for name in ("resource", "launch", "config", "models", PACKAGE):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    arguments = ["install", "--prefix", "/prefix", "--root", str(work / "root")]
    arguments += ["--single-version-externally-managed", "--record", str(work / "record.txt")]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", *arguments],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return work / "root/prefix"


def imported_roots(folder: Path) -> set[str]:
    """List the top-level packages that the Python files below a folder import, wherever in the file."""
    roots: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                roots.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                roots.add(node.module.split(".")[0])
    return roots


def package_dependencies() -> set[str]:
    """List what package.xml says is needed at run time."""
    tree = ElementTree.parse(ROOT / "package.xml").getroot()
    return {element.text or "" for tag in ("depend", "exec_depend") for element in tree.iter(tag)}


def test_the_resource_index_names_the_package(installed: Path) -> None:
    assert (installed / "share/ament_index/resource_index/packages" / PACKAGE).is_file()


@pytest.mark.parametrize(
    "name", ["package.xml", "launch/detector.launch.py", "config/detector.yaml", "config/fastdds_images.xml"]
)
def test_share_holds_what_a_launch_needs(installed: Path, name: str) -> None:
    assert (installed / "share" / PACKAGE / name).read_bytes() == (ROOT / name).read_bytes()


def test_share_holds_every_file_of_the_shipped_bundles_and_no_weights_of_training(installed: Path) -> None:
    expected = {path.relative_to(ROOT) for path in (ROOT / "models").glob("*.anydepth/**/*") if path.is_file()}
    share = installed / "share" / PACKAGE
    assert {path.relative_to(share) for path in (share / "models").rglob("*") if path.is_file()} == expected
    assert any(path.name == "manifest.json" for path in expected)


def test_executables_are_where_ros2_run_looks(installed: Path) -> None:
    folder = installed / "lib" / PACKAGE
    assert {path.name for path in folder.iterdir()} == set(EXECUTABLES)
    assert all(os.access(path, os.X_OK) for path in folder.iterdir())


def test_every_executable_starts_an_existing_function() -> None:
    scripts = re.findall(r'f"(\w+) = \{PACKAGE\}\.([\w.]+):(\w+)"', (ROOT / "setup.py").read_text())
    assert {name for name, _, _ in scripts} == set(EXECUTABLES)
    for _, module, function in scripts:
        assert callable(getattr(importlib.import_module(f"{PACKAGE}.{module}"), function))


def test_every_module_of_the_package_is_installed(installed: Path) -> None:
    site_packages = next(installed.rglob(f"{PACKAGE}/__init__.py")).parent.parent
    expected = {path.relative_to(ROOT) for path in (ROOT / PACKAGE).rglob("*.py")}
    assert expected <= {path.relative_to(site_packages) for path in site_packages.rglob("*.py")}


def test_training_is_not_installed(installed: Path) -> None:
    assert not [path for path in installed.rglob("*.py") if "training" in path.parts]


def test_package_xml_names_every_import() -> None:
    third_party = imported_roots(ROOT / PACKAGE) | imported_roots(ROOT / "launch")
    third_party -= set(sys.stdlib_module_names) | {PACKAGE}
    keys = {ROSDEP_KEYS.get(module, module) for module in third_party}
    optional = {None, "cv_bridge", "matplotlib", "openvino", "rosbags", "simplejpeg", "tensorrt", "tensorrt_rtx"}
    assert keys - optional <= package_dependencies()


def test_the_robot_half_imports_neither_torch_nor_training() -> None:
    assert not imported_roots(ROOT / PACKAGE) & {"torch", "training"}


def test_versions_agree() -> None:
    version = ElementTree.parse(ROOT / "package.xml").getroot().findtext("version")
    assert f'version="{version}"' in (ROOT / "setup.py").read_text()


def test_scripts_go_where_ament_python_wants_them() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    assert settings["install"]["install_scripts"] == f"$base/lib/{PACKAGE}"
    assert settings["develop"]["script_dir"] == f"$base/lib/{PACKAGE}"


def test_the_robot_half_imports_in_an_environment_without_torch() -> None:
    python = ROOT / ".venv/bin/python"
    if not python.is_file():
        pytest.skip("there is no run-time environment (make setup-runtime)")
    names = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / PACKAGE).rglob("*.py")
        if path.name != "__main__.py"
    )
    code = (
        "import importlib, importlib.util, sys\n"
        "assert importlib.util.find_spec('torch') is None, 'torch is installed'\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [str(python), "-c", code], cwd=ROOT.anchor, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
