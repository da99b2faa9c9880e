"""What measured times depend on: the machine, the backend, the bundle; and the file that a profile is kept in."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from anydepth_perception.backends.cpu import cpu_model
from anydepth_perception.backends.user_cache import user_cache_folder
from anydepth_perception.detection.detector import Detector
from anydepth_perception.profile.machine import UNKNOWN, power_mode

_MAX_NAME = 120


def fingerprint(detector: Detector) -> dict[str, str]:
    """What times depend on: this machine and its power mode, the backend and how it computes, the bundle."""
    backend, bundle = detector.backend, detector.bundle
    return {
        "cpu_model": cpu_model(),
        "cpus": str(os.cpu_count()),
        "power_mode": power_mode(),
        "backend": backend.name,
        "backend_version": backend.version,
        "device": backend.device,
        "precision": backend.precision,
        "flags": ", ".join(f"{key}={value}" for key, value in sorted(backend.flags.items())),
        "threads": str(backend.threads),
        "execution": _execution(detector),
        "bundle": bundle.name,
        "bundle_precision": str(bundle.manifest.provenance.get("precision", "float32")),
        "bundle_sha256": bundle.fingerprint,
    }


def default_path(detector: Detector) -> Path:
    """Where the profile of `detector` lies: in the user's cache folder (XDG_CACHE_HOME, else ~/.cache).

    Each bundle, backend, execution and power mode has a file of its own.
    """
    facts = fingerprint(detector)
    parts = [facts[key] for key in ("bundle", "backend", "precision", "threads")]
    parts.append(facts["execution"].split(" ", 1)[0])
    if facts["power_mode"] != UNKNOWN:
        parts.append(facts["power_mode"])
    return user_cache_folder() / "profiles" / f"{_file_name('-'.join(parts))}.json"


def _execution(detector: Detector) -> str:
    """`whole`, or `staged` and where it decides."""
    points = [entries[0] for entries in detector.groups[1:]]
    return f"staged before {', '.join(points)}" if points else "whole"


def _file_name(text: str) -> str:
    """`text` as a plain file name. A bundle may be called anything, a path to elsewhere included."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".")[:_MAX_NAME]
    return plain if plain == text else f"{plain}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
