"""The profile: how long each configuration and each step takes on one machine, measured and kept in a file."""

from __future__ import annotations

from anydepth_perception.profile.document import Profile, ProfileError, RungTimes, Times
from anydepth_perception.profile.fit import MOST_RESIDUAL
from anydepth_perception.profile.identity import default_path, fingerprint
from anydepth_perception.profile.measure import QUICK_ROUNDS, load_or_measure, measure_profile
from anydepth_perception.profile.steps import StepTimer

__all__ = [
    "MOST_RESIDUAL",
    "QUICK_ROUNDS",
    "Profile",
    "ProfileError",
    "RungTimes",
    "StepTimer",
    "Times",
    "default_path",
    "fingerprint",
    "load_or_measure",
    "measure_profile",
]
