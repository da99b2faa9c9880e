"""The one table of node parameters: source of declaration, validation, the YAML file and the documentation."""

from __future__ import annotations

import argparse
import dataclasses
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydepth_perception.depth.space import DepthConfig, DepthConfigError
from anydepth_perception.serving.thresholds import ThresholdError, parse_thresholds

DEPTH_CHOICES = "'auto', 'full', 'base' or a depth configuration like 'FFEE.FFEE' (with '.d4' for a decoder exit)"

_LISTS = {
    "image_topics": "a list of different topic names, at least one",
    "decision_points": "a list of different pipeline entries, as 'p5'",
    "class_score_thresholds": "a list of texts CLASS:SCORE, one per class, with a score in [0, 1]",
}
_ANY_EXIT = 999  # stands for "the number of decoder exits is not known yet"
_TOPIC = re.compile(r"(~/|/)?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


class ParameterError(ValueError):
    """A parameter value that is refused; the text names the parameter, the value and what is accepted."""


@dataclass(frozen=True)
class ParameterInfo:
    """What is known of a parameter beside its name, type and default.

    `live` parameters change while frames are served; the others only while the node is unconfigured.
    `minimum` and `maximum` are inclusive; `choices` lists the accepted texts.
    """

    description: str
    live: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()


def _parameter(default: Any, description: str, **info: Any) -> Any:
    return dataclasses.field(default=default, metadata={"info": ParameterInfo(description, **info)})


@dataclass(frozen=True)
class Settings:
    """All parameters of the node, validated. Field order is the order of the documentation."""

    model: str = _parameter("aisle-yolo-t", "Path of a bundle folder (NAME.anydepth), or the name of a shipped bundle.")
    backend: str = _parameter(
        "auto",
        "Inference engine; auto takes TensorRT where it is usable, else ONNX Runtime.",
        choices=("auto", "onnxruntime", "openvino", "tensorrt"),
    )
    threads: int = _parameter(
        0, "Threads of the inference engine; 0 leaves the choice to the backend.", minimum=0, maximum=256
    )
    precision: str = _parameter(
        "auto",
        "Arithmetic of TensorRT, float16 with auto; the other backends compute in float32.",
        choices=("auto", "float32", "float16"),
    )
    workspace_mib: int = _parameter(
        1024, "Most memory that TensorRT may use as workspace of an engine, MiB.", minimum=16, maximum=65536
    )
    execution: str = _parameter(
        "whole",
        "whole: one engine per depth, decided once per frame; staged: one per part, depth may change within a frame.",
        choices=("whole", "staged"),
    )
    decision_points: tuple[str, ...] = _parameter(
        (),
        "Where staged decides, beside the start: before these entries of the bundle's pipeline. "
        "Empty: after p4, before the bottom-up path, before the decoder's layers or the head.",
    )
    cache_dir: str = _parameter(
        "",
        "Folder in which built engines are kept; empty takes the user's cache folder ($XDG_CACHE_HOME, else ~/.cache), "
        "none builds them anew at each start.",
    )
    profile: str = _parameter(
        "",
        "Path of a latency profile; empty takes the one that was saved here, else measures at configure.",
    )
    depth: str = _parameter(
        "auto",
        "Depth of the detector: auto meets the deadline; full, base or a configuration like FFEE.FFEE fixes it.",
        live=True,
    )
    deadline_ms: float = _parameter(
        0.0,
        "Milliseconds from camera stamp to published detections that auto has to meet; 0 is off, and auto runs full.",
        live=True,
        minimum=0.0,
        maximum=60000.0,
    )
    late_policy: str = _parameter(
        "run_base",
        "A frame that no depth can serve in time: run_base serves it at base; drop skips it if a newer one waits.",
        live=True,
        choices=("run_base", "drop"),
    )
    score_threshold: float = _parameter(
        0.3, "Detections scoring below it are not published.", live=True, minimum=0.0, maximum=1.0
    )
    class_score_thresholds: tuple[str, ...] = _parameter(
        (), "Thresholds of single classes, as person:0.5; the other classes have score_threshold.", live=True
    )
    max_detections: int = _parameter(
        100, "Most detections published for a frame, best scores first.", live=True, minimum=1, maximum=1000
    )
    class_id_format: str = _parameter(
        "name", "Content of class_id in the detections: label name or index.", choices=("name", "index")
    )
    image_topics: tuple[str, ...] = _parameter(
        ("image_raw",),
        "Image topics, one per camera. With several, outputs go to the namespace of each camera's topic.",
    )
    image_transport: str = _parameter(
        "raw",
        "raw subscribes to sensor_msgs/Image on the topic; compressed to CompressedImage on <topic>/compressed.",
        choices=("raw", "compressed"),
    )
    image_qos: str = _parameter(
        "best_effort",
        "Reliability of the image subscription. best_effort matches every publisher; reliable loses fewer images.",
        choices=("best_effort", "reliable"),
    )
    autostart: bool = _parameter(True, "Configure and activate at start, without a lifecycle manager.")

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> Settings:
        """Validated settings; parameters that `values` lacks take their default.

        Raises:
            ParameterError: for the first value that is refused, or an unknown name.
        """
        return cls().updated(values, configured=False)

    def updated(
        self,
        values: Mapping[str, object],
        *,
        configured: bool,
        num_exits: int | None = None,
        class_names: Sequence[str] | None = None,
    ) -> Settings:
        """These settings with `values` changed, all or none.

        Args:
            values: by parameter name.
            configured: whether the node holds a bundle, so that only live parameters may change.
            num_exits: decoder exits of that bundle, None when there is no bundle yet.
            class_names: its class names, None when there is no bundle yet.

        Raises:
            ParameterError: for the first value that is refused, or an unknown name.
        """
        accepted = {}
        for name, value in values.items():
            checked = check(name, value, num_exits=num_exits, class_names=class_names)
            if configured and not TABLE[name].live and checked != getattr(self, name):
                raise ParameterError(
                    f"{name} is read-only while the node is configured: clean the node up first, or restart it"
                )
            accepted[name] = checked
        return dataclasses.replace(self, **accepted)


TABLE: dict[str, ParameterInfo] = {field.name: field.metadata["info"] for field in dataclasses.fields(Settings)}
DEFAULTS: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(Settings)}


def accepted_values(name: str) -> str:
    """What a parameter accepts, in words for an error or a table."""
    info, default = TABLE[name], DEFAULTS[name]
    if name == "depth":
        return DEPTH_CHOICES
    if info.choices:
        return ", ".join(repr(choice) for choice in info.choices)
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, (int, float)):
        kind = "a whole number" if isinstance(default, int) else "a number"
        return f"{kind} in [{info.minimum:g}, {info.maximum:g}]"
    if isinstance(default, tuple):
        return _LISTS[name]
    return "a text that is not empty" if default else "a text"


def check(
    name: str, value: object, *, num_exits: int | None = None, class_names: Sequence[str] | None = None
) -> Any:
    """The value in the type of the table.

    Args:
        name: of the parameter.
        value: as ROS hands it over.
        num_exits: decoder exits that a depth may name; None accepts any.
        class_names: classes that a threshold may name; None accepts any.

    Raises:
        ParameterError: the name is unknown, or the value has the wrong type or is out of range.
    """
    if name not in TABLE:
        raise ParameterError(f"unknown parameter {name!r}; known are {', '.join(TABLE)}")
    refusal = ParameterError(f"{name} must be {accepted_values(name)}; got {_shown(value)}")
    info, default = TABLE[name], DEFAULTS[name]
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise refusal
        return value
    if isinstance(default, (int, float)):
        return _check_number(value, info, type(default), refusal)
    if isinstance(default, tuple):
        return _check_list(name, value, class_names, refusal)
    if not isinstance(value, str):
        raise refusal
    if name == "depth":
        return _check_depth(value, num_exits)
    if (info.choices and value not in info.choices) or (default and not value.strip()):
        raise refusal
    return value


def _check_number(value: object, info: ParameterInfo, kind: type, refusal: ParameterError) -> float | int:
    accepted = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, accepted) or not math.isfinite(value):
        raise refusal
    assert info.minimum is not None and info.maximum is not None
    if not info.minimum <= value <= info.maximum:
        raise refusal
    return int(value) if kind is int else float(value)


def _check_list(
    name: str, value: object, class_names: Sequence[str] | None, refusal: ParameterError
) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise refusal
    if name == "image_topics":
        if not value or not all(_TOPIC.fullmatch(topic) for topic in value) or len(set(value)) != len(value):
            raise refusal
        return tuple(value)
    items = tuple(item for item in value if item)  # [""] is how a parameter file writes an empty list of texts
    if len(set(items)) != len(items):
        raise refusal
    if name == "class_score_thresholds":
        try:
            parse_thresholds(items, class_names)
        except ThresholdError as error:
            raise ParameterError(f"{refusal}: {error}") from error
    return items


def _check_depth(value: str, num_exits: int | None) -> str:
    if value == "auto":
        return value
    try:
        DepthConfig.parse(value, _ANY_EXIT if num_exits is None else num_exits)
    except DepthConfigError as error:
        raise ParameterError(f"depth must be {DEPTH_CHOICES}; got {value!r}: {error}") from error
    return value


def typed(name: str, text: str) -> Any:
    """A value given as text, as a launch argument is, in the type of the parameter.

    A text that does not fit the type stays a text, for the node to refuse with its reason. A list is written with
    commas, with or without brackets.
    """
    default = DEFAULTS[name]
    if isinstance(default, tuple):
        return [part.strip(" '\"") for part in text.strip().strip("[]").split(",")]
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower(), text)
    if isinstance(default, (int, float)):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return text


def _shown(value: object) -> str:
    if value is None:
        return "no value"
    return f"{value!r} ({type(value).__name__})"


def _type_name(default: object) -> str:
    if isinstance(default, tuple):
        return "string list"
    return {bool: "bool", int: "int", float: "double", str: "string"}[type(default)]


def _yaml_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        # A parameter file cannot hold an empty list, for want of a type.
        return "[" + ", ".join(value) + "]" if value else '[""]'
    return f'"{value}"' if isinstance(value, str) else str(value)


def to_markdown() -> str:
    """The parameter table of the documentation."""
    rows = ["| parameter | type | default | accepted | changes | meaning |", "|---|---|---|---|---|---|"]
    for name, info in TABLE.items():
        default = _yaml_value(DEFAULTS[name])
        changes = "live" if info.live else "unconfigured"
        accepted = accepted_values(name).replace("'", "`")
        rows.append(
            f"| `{name}` | {_type_name(DEFAULTS[name])} | `{default}` | {accepted} | {changes} | {info.description} |"
        )
    return "\n".join(rows) + "\n"


def to_yaml() -> str:
    """The parameter file with every parameter at its default and its meaning as a comment."""
    lines = ["# Parameters of the node `detector`, all at their default. Print it again with:"]
    lines += ["#   python -m anydepth_perception.serving.settings --yaml", "/**:", "  ros__parameters:"]
    for name, info in TABLE.items():
        changes = "Live." if info.live else "Read-only while the node is configured."
        comment = f"{info.description} Accepted: {accepted_values(name)}. {changes}"
        lines += [f"    # {part}" for part in textwrap.wrap(comment, 110)]
        lines.append(f"    {name}: {_yaml_value(DEFAULTS[name])}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Prints the table as Markdown or as the YAML parameter file."""
    parser = argparse.ArgumentParser(description=__doc__)
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument("--markdown", action="store_true", help="the table of docs/node.md")
    form.add_argument("--yaml", action="store_true", help="the file config/detector.yaml")
    print(to_markdown() if parser.parse_args().markdown else to_yaml(), end="")


if __name__ == "__main__":
    main()
