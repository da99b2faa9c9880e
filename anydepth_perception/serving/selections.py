"""What of each camera's images counts, as the parameters say it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from anydepth_perception.detection.regions import Mask, MaskError, Region, Selection, read_mask
from anydepth_perception.serving.settings import Settings

_LOG = logging.getLogger(__name__)

CANDIDATES = 1000
"""Detections that are looked at where some may be left out, so that `max_detections` of those that count remain."""


class Selections:
    """A `Selection` for each camera, made anew when a parameter has changed."""

    def __init__(self, class_names: Sequence[str]) -> None:
        """`class_names` are the bundle's."""
        self._class_ids = {name: index for index, name in enumerate(class_names)}
        self._settings: Settings | None = None
        self._by_camera: dict[int, Selection] = {}

    def of_camera(self, camera: int, settings: Settings) -> Selection:
        """What counts of the images of the camera with this index in `image_topics`."""
        if settings is not self._settings:
            self._settings, self._by_camera = settings, {}
        known = self._by_camera.get(camera)
        if known is None:
            known = self._by_camera[camera] = self._make(camera, settings)
        return known

    def _make(self, camera: int, settings: Settings) -> Selection:
        region, allowed = settings.region_of_camera(camera), settings.class_allowlist
        return Selection(
            region=Region(*region) if region else None,
            mask=_mask(settings.mask_of_camera(camera)),
            class_ids=frozenset(self._class_ids[name] for name in allowed) if allowed else None,
            min_box_size=settings.min_box_size,
        )


def _mask(path: str) -> Mask | None:
    if not path:
        return None
    try:
        return read_mask(path)
    except MaskError as error:  # it could be read when the parameter was set
        _LOG.error("no mask is laid over the images: %s", error)
        return None
