"""Declares the parameter table on a node, so that a bad value at start-up is told at configure and can be fixed."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

from anydepth_perception.serving.parameters import Number, WholeNumber
from anydepth_perception.serving.settings import DEFAULTS, LISTS_BY_CAMERA, TABLE, ParameterError, Settings, check


def descriptor(name: str, *, with_range: bool = True) -> ParameterDescriptor:
    """The ParameterDescriptor of a parameter of the table.

    The type is left open, for two reasons: a whole number is accepted where a number is meant, and a wrong type at
    start-up becomes a reason at configure instead of an exception in the constructor.
    """
    info = TABLE[name]
    kind = info.kind
    constraints = f"Accepted: {kind.accepted}."
    if not info.live:
        constraints += " Read-only while the node is configured."
    message = ParameterDescriptor(
        name=name, description=info.description, additional_constraints=constraints, dynamic_typing=True
    )
    if with_range and isinstance(kind, WholeNumber):
        message.integer_range = [IntegerRange(from_value=kind.minimum, to_value=kind.maximum)]
    elif with_range and isinstance(kind, Number):
        message.floating_point_range = [FloatingPointRange(from_value=kind.minimum, to_value=kind.maximum)]
    return message


def declare(node: Node) -> tuple[Settings, dict[str, str]]:
    """Declares all parameters; the settings, and why a start-up value was refused, by parameter.

    A refused parameter has its default in the settings.
    """
    values: dict[str, object] = {}
    refused: dict[str, str] = {}
    for name, default in DEFAULTS.items():
        initial = (list(default) or [""]) if isinstance(default, tuple) else default
        try:
            parameter = node.declare_parameter(name, initial, descriptor(name))
        except ParameterException:  # out of the descriptor's range
            parameter = node.declare_parameter(name, initial, descriptor(name, with_range=False))
        # ROS has no type for an empty list at start-up, and says that there is no value.
        value = initial if parameter.value is None and default == () else parameter.value
        try:
            values[name] = check(name, value)
        except ParameterError as error:
            refused[name] = str(error)
    try:
        return Settings.from_values(values), refused
    except ParameterError:  # lists that contradict the number of topics
        return _without_contradictions(values, refused), refused


def _without_contradictions(values: dict[str, object], refused: dict[str, str]) -> Settings:
    """The settings without those lists whose length does not fit the topics; why, goes into `refused`."""
    consistent = dict(values)
    topics = values.get("image_topics", DEFAULTS["image_topics"])
    for name in LISTS_BY_CAMERA:
        try:
            Settings.from_values({"image_topics": topics, name: values.get(name, DEFAULTS[name])})
        except ParameterError as error:
            refused[name] = str(error)
            consistent[name] = DEFAULTS[name]
    return Settings.from_values(consistent)


def keep_types(parameters: list[Parameter]) -> list[Parameter]:
    """The parameters that are asked for, whole numbers as numbers where the table has a number.

    So `ros2 param set NODE score_threshold 1` does not make a whole number of the parameter for good.
    """
    def kept(parameter: Parameter) -> Parameter:
        info = TABLE.get(parameter.name)
        is_number = info is not None and isinstance(info.kind, Number)
        if is_number and parameter.type_ == Parameter.Type.INTEGER:
            return Parameter(parameter.name, value=float(parameter.value))
        return parameter

    return [kept(parameter) for parameter in parameters]


def unknown_overrides(node: Node) -> list[str]:
    """Start-up parameters that nobody declared, most likely misspelt."""
    overrides = getattr(node, "_parameter_overrides", {})  # rclpy offers no public look at them
    return sorted(
        name for name in overrides if not node.has_parameter(name) and not name.startswith("qos_overrides.")
    )
