"""The one table of node parameters: source of declaration, validation, the YAML file and the documentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from anydepth_perception.backends import BACKENDS, DEFAULT_WORKSPACE_MIB, PRECISIONS
from anydepth_perception.depth.limits import DepthLimits
from anydepth_perception.depth.space import DepthConfigError, DepthSpace
from anydepth_perception.detection.images import DEFAULT_MAX_PIXELS
from anydepth_perception.execution import STAGED, WHOLE
from anydepth_perception.serving.list_parameters import (
    NO_MASK,
    Classes,
    Entries,
    Masks,
    Numbers,
    Regions,
    Thresholds,
    Topics,
)
from anydepth_perception.serving.parameters import (
    Choice,
    Depth,
    DepthLimit,
    Flag,
    Kind,
    Known,
    Number,
    RefusedValueError,
    Text,
    Value,
    WholeNumber,
)

AUTO_EXECUTION = "auto"
"""Value of the parameter `execution` that takes the better one of the two."""

Default = TypeVar("Default", bound=Value)


class ParameterError(ValueError):
    """A parameter value that is refused; the text names the parameter, the value and what is accepted."""


@dataclass(frozen=True)
class ParameterInfo:
    """What is known of a parameter beside its name and default.

    `live` parameters change while frames are served; the others only while the node is unconfigured.
    """

    description: str
    kind: Kind[Value]
    live: bool = False


def _parameter(default: Default, kind: Kind[Default], description: str, *, live: bool = False) -> Default:
    return dataclasses.field(default=default, metadata={"info": ParameterInfo(description, kind, live)})


@dataclass(frozen=True)
class Settings:
    """All parameters of the node, validated. Field order is the order of the documentation."""

    model: str = _parameter(
        "aisle-yolo-t",
        Text(may_be_empty=False),
        "Path of a bundle folder (NAME.anydepth), or the name of a shipped bundle.",
    )
    backend: str = _parameter(
        "auto",
        Choice(BACKENDS),
        "Inference engine; auto takes TensorRT where it is usable, else ONNX Runtime.",
    )
    threads: int = _parameter(
        0, WholeNumber(0, 256), "Threads of the inference engine; 0 leaves the choice to the backend."
    )
    precision: str = _parameter(
        "auto",
        Choice(PRECISIONS),
        "Arithmetic of TensorRT, float16 with auto; the other backends compute in float32.",
    )
    workspace_mib: int = _parameter(
        DEFAULT_WORKSPACE_MIB,
        WholeNumber(16, 65536),
        "Most memory that TensorRT may use as workspace of an engine, MiB.",
    )
    execution: str = _parameter(
        "whole",
        Choice((AUTO_EXECUTION, WHOLE, STAGED)),
        "whole: one engine per depth, decided once per frame; staged: one per part, depth may change within a frame; "
        "auto: measures both at configure, and takes staged where it costs at most 3 % more time.",
    )
    decision_points: tuple[str, ...] = _parameter(
        (),
        Entries(),
        "Where staged decides, beside the start: before these entries of the bundle's pipeline. "
        "Empty: before p4, the top-down and the bottom-up path; with a decoder before p4, fpn_p3 and its layers.",
    )
    cache_dir: str = _parameter(
        "", Text(),
        "Folder in which built engines are kept; empty takes the user's cache folder ($XDG_CACHE_HOME, else ~/.cache), "
        "none builds them anew at each start.",
    )
    profile: str = _parameter(
        "", Text(), "Path of a latency profile; empty takes the one that was saved here, else measures at configure."
    )
    record_times: str = _parameter(
        "", Text(),
        "Path of an .npz file for the times of all frames, written when the node is deactivated or ends, to replay and "
        "to choose a deadline by. Empty: none is kept.",
    )
    depth: str = _parameter(
        "auto", Depth(),
        "Depth of the detector: auto meets the deadline; full, base or a configuration like FFEE.FFEE fixes it.",
        live=True,
    )
    deadline_ms: float = _parameter(
        0.0,
        Number(0.0, 60000.0),
        "Milliseconds from camera stamp to published detections that auto has to meet; 0 is off, and auto runs full.",
        live=True,
    )
    camera_deadlines_ms: tuple[float, ...] = _parameter(
        (),
        Numbers(0.0, 60000.0),
        "Deadlines of the single cameras, one for each of image_topics in their order; 0 is off for that camera. "
        "Empty: deadline_ms for all.",
        live=True,
    )
    min_depth: str = _parameter(
        "", DepthLimit(),
        "Least depth that auto may choose: what it runs in full stays full, its exit is the first. Empty: none.",
        live=True,
    )
    max_depth: str = _parameter(
        "", DepthLimit(),
        "Most depth that auto may choose, which saves power where full is not needed. Empty: none.",
        live=True,
    )
    miss_target: float = _parameter(
        0.01,
        Number(0.0001, 0.5),
        "Share of frames that may miss a deadline which a shallower depth would have met; auto stays well below it.",
        live=True,
    )
    late_policy: str = _parameter(
        "run_base",
        Choice(("run_base", "drop")),
        "A frame that no depth can serve in time: run_base serves it at base; drop skips it if another one waits, or "
        "the camera's next one arrives before it would be done.",
        live=True,
    )
    score_threshold: float = _parameter(
        0.3, Number(0.0, 1.0), "Detections scoring below it are not published.", live=True
    )
    class_score_thresholds: tuple[str, ...] = _parameter(
        (),
        Thresholds(),
        "Thresholds of single classes, as person:0.5; the other classes have score_threshold.",
        live=True,
    )
    max_detections: int = _parameter(
        100, WholeNumber(1, 1000), "Most detections published for a frame, best scores first.", live=True
    )
    class_allowlist: tuple[str, ...] = _parameter(
        (), Classes(), "Classes whose detections are published. Empty: all.", live=True
    )
    min_box_size: float = _parameter(
        0.0,
        Number(0.0, 32767.0),
        "Detections whose box is shorter than this along either side are not published, pixels of the source image.",
        live=True,
    )
    roi: tuple[float, ...] = _parameter(
        (),
        Regions(),
        "Region of interest as fractions of the image: left, top, right, bottom, once or for each of image_topics. The "
        "detector sees nothing else, at a larger scale. Empty: the whole image.",
        live=True,
    )
    mask: tuple[str, ...] = _parameter(
        (),
        Masks(),
        "PNG laid over the whole image, once or for each of image_topics: a detection is published if half of its box "
        "or more is white. Empty, or none in its place: no mask.",
        live=True,
    )
    class_id_format: str = _parameter(
        "name", Choice(("name", "index")), "Content of class_id in the detections: label name or index."
    )
    image_topics: tuple[str, ...] = _parameter(
        ("image_raw",),
        Topics(),
        "Image topics, one per camera. With several, outputs go to the namespace of each camera's topic.",
    )
    image_transport: str = _parameter(
        "raw",
        Choice(("raw", "compressed"), "`ros2 run image_transport republish` makes raw images of other transports"),
        "raw subscribes to sensor_msgs/Image on the topic; compressed to CompressedImage on <topic>/compressed.",
    )
    max_image_pixels: int = _parameter(
        DEFAULT_MAX_PIXELS,
        WholeNumber(1, 2**28),
        "Larger images are refused before they are decoded: a few bytes can claim to be a picture of gigabytes.",
        live=True,
    )
    mono16_bits: int = _parameter(
        16,
        WholeNumber(8, 16),
        "Significant bits of mono16, 16UC1 and 16-bit Bayer images, of which the highest 8 are used: 12 or 14 for many "
        "sensors.",
        live=True,
    )
    image_qos: str = _parameter(
        "best_effort",
        Choice(("best_effort", "reliable")),
        "Reliability of the image subscription. best_effort matches every publisher; reliable loses fewer images.",
    )
    autostart: bool = _parameter(True, Flag(), "Configure and activate at start, without a lifecycle manager.")
    exit_on_error: bool = _parameter(
        False, Flag(), "End the process, with exit code 1, where autostart cannot configure or activate."
    )

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Settings:
        """Validated settings; parameters that `values` lacks take their default.

        Raises:
            ParameterError: for the first value that is refused, an unknown name, or values that contradict each other.
        """
        return cls().updated(values, configured=False)

    def updated(
        self,
        values: Mapping[str, object],
        *,
        configured: bool,
        space: DepthSpace | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Settings:
        """These settings with `values` changed, all or none.

        Args:
            values: by parameter name.
            configured: whether the node holds a bundle, so that only live parameters may change.
            space: depth space of that bundle, None when there is no bundle yet.
            class_names: its class names, None when there is no bundle yet.

        Raises:
            ParameterError: for the first value that is refused, an unknown name, or values that contradict each other.
        """
        accepted: dict[str, Any] = {}  # `replace` takes each field in its own type, which no mapping can say
        for name, value in values.items():
            checked = check(name, value, space=space, class_names=class_names)
            if configured and not TABLE[name].live and checked != getattr(self, name):
                raise ParameterError(
                    f"{name} is read-only while the node is configured: clean the node up first, or restart it"
                )
            accepted[name] = checked
        settings = dataclasses.replace(self, **accepted)
        settings._check_lengths()
        if space is not None and not {"min_depth", "max_depth"}.isdisjoint(values):
            settings._check_limits(space)
        return settings

    def _check_limits(self, space: DepthSpace) -> None:
        """Raises: ParameterError, where no configuration is left between the limits of depth."""
        try:
            DepthLimits(self.min_depth, self.max_depth).within(space, list(space.all()))
        except DepthConfigError as error:
            raise ParameterError(f"min_depth and max_depth contradict each other: {error}") from error

    def _check_lengths(self) -> None:
        """Raises: ParameterError, where a list has another length than the cameras ask for."""
        cameras = len(self.image_topics)
        for name, (per_camera, may_be_common) in LISTS_BY_CAMERA.items():
            length = len(getattr(self, name))
            if length in (0, per_camera * cameras) or (may_be_common and length == per_camera):
                continue
            what = "one entry" if per_camera == 1 else f"{per_camera} numbers"
            common = f", {what} for all" if may_be_common else ""
            raise ParameterError(
                f"{name} must have {what} for each of image_topics{common}, or none; got {length} for {cameras} topics"
            )

    def checked(self, space: DepthSpace | None, class_names: Sequence[str]) -> Settings:
        """These settings, with what is live held against a bundle that was not known when it was set.

        Raises:
            ParameterError: for the first value that this bundle does not allow.
        """
        live = {name: getattr(self, name) for name, info in TABLE.items() if info.live}
        return self.updated(live, configured=True, space=space, class_names=class_names)

    def deadline_of_camera_ms(self, camera: int) -> float:
        """The deadline of the camera with this index in `image_topics`, milliseconds; 0 is off."""
        return self.camera_deadlines_ms[camera] if self.camera_deadlines_ms else self.deadline_ms

    def region_of_camera(self, camera: int) -> tuple[float, ...]:
        """Left, top, right, bottom of the camera's region of interest, as fractions; empty for the whole image."""
        return self.roi[4 * camera : 4 * camera + 4] if len(self.roi) > 4 else self.roi

    def mask_of_camera(self, camera: int) -> str:
        """Path of the camera's mask, empty for none."""
        path = self.mask[camera] if len(self.mask) > 1 else "".join(self.mask)
        return "" if path == NO_MASK else path


LISTS_BY_CAMERA = {"camera_deadlines_ms": (1, False), "roi": (4, True), "mask": (1, True)}
"""Parameters with as many entries for each of `image_topics`, and whether those of one may stand for all."""

TABLE: dict[str, ParameterInfo] = {field.name: field.metadata["info"] for field in dataclasses.fields(Settings)}
DEFAULTS: dict[str, Value] = {name: getattr(Settings, name) for name in TABLE}


def check(
    name: str, value: object, *, space: DepthSpace | None = None, class_names: Sequence[str] | None = None
) -> Value:
    """The value in the type of the table.

    Args:
        name: of the parameter.
        value: as ROS hands it over.
        space: configurations that a depth may name; None accepts any that is well written.
        class_names: classes that a threshold may name; None accepts any.

    Raises:
        ParameterError: the name is unknown, or the value has the wrong type or is out of range.
    """
    if name not in TABLE:
        raise ParameterError(f"unknown parameter {name!r}; known are {', '.join(TABLE)}")
    kind = TABLE[name].kind
    try:
        return kind.parse(value, Known(space, class_names))
    except RefusedValueError as error:
        raise ParameterError(f"{name} must be {kind.accepted}; got {error}") from error


def typed(name: str, text: str) -> object:
    """A value given as text, as a launch argument is, in the type of the parameter.

    A text that does not fit the type stays a text, for the node to refuse with its reason. A list is written with
    commas, with or without brackets.
    """
    return TABLE[name].kind.from_text(text)
