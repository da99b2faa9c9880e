"""Quality of service: the profiles of the node's topics, events, and the DDS profile that lets images through."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.subscription import Subscription
from rclpy.topic_endpoint_info import TopicEndpointInfo

try:
    from rclpy.event_handler import (
        PublisherEventCallbacks,
        QoSMessageLostInfo,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )
except ImportError:  # Humble
    from rclpy.qos_event import (
        PublisherEventCallbacks,
        QoSMessageLostInfo,
        QoSOfferedIncompatibleQoSInfo,
        QoSRequestedIncompatibleQoSInfo,
        SubscriptionEventCallbacks,
        UnsupportedEventTypeError,
    )

DETECTIONS = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)
DEBUG_IMAGE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE)
FRAMES = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=ReliabilityPolicy.RELIABLE)

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""Name the profile file for Fast DDS: the first up to Jazzy, the second from Kilted on."""

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
"""Types of messages, as the graph names them."""

_UNKNOWN_NODE = "_NODE_NAME_UNKNOWN_"
_MOST_LOST = 1_000_000
_INFINITE_NS = 2**63 - 1

Message = TypeVar("Message")


def image_qos(reliability: str, depth: int = 1) -> QoSProfile:
    """Profile of an image topic; `reliability` is best_effort or reliable, `depth` in messages."""
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def describe(qos: QoSProfile) -> str:
    """The policies that decide whether two endpoints match, in words."""
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"


def mismatches(offered: QoSProfile, requested: QoSProfile) -> list[str]:
    """Names of the policies in which a publisher offers less than a subscription requests.

    rclpy's own check cannot be used on endpoints found in the graph: it takes their infinite deadline for one that the
    other side lacks.
    """
    names = []
    if requested.reliability == ReliabilityPolicy.RELIABLE and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        names.append("reliability")
    if requested.durability == DurabilityPolicy.TRANSIENT_LOCAL and offered.durability == DurabilityPolicy.VOLATILE:
        names.append("durability")
    if _period_ns(requested.deadline) < _period_ns(offered.deadline):
        names.append("deadline")
    manual = LivelinessPolicy.MANUAL_BY_TOPIC
    if (requested.liveliness == manual and offered.liveliness != manual) or (
        _period_ns(requested.liveliness_lease_duration) < _period_ns(offered.liveliness_lease_duration)
    ):
        names.append("liveliness")
    return names


def _period_ns(duration: Duration) -> float:
    """Nanoseconds; 0 stands for unset, which is as good as the largest, infinite."""
    return duration.nanoseconds if 0 < duration.nanoseconds < _INFINITE_NS else math.inf


def incompatible_publishers(node: Node, topic: str, requested: QoSProfile) -> list[str]:
    """Publishers of `topic` (fully qualified) that offer less than `requested`, with their QoS and the policies."""
    infos = node.get_publishers_info_by_topic(topic)
    return [_described(info, names) for info in infos if (names := mismatches(info.qos_profile, requested))]


def incompatible_subscribers(node: Node, topic: str, offered: QoSProfile) -> list[str]:
    """Subscribers of `topic` (fully qualified) that request more than `offered`, with their QoS and the policies."""
    infos = node.get_subscriptions_info_by_topic(topic)
    return [_described(info, names) for info in infos if (names := mismatches(offered, info.qos_profile))]


def _described(info: TopicEndpointInfo, policies: list[str]) -> str:
    return f"{endpoint_name(info)} ({describe(info.qos_profile)}; incompatible in {', '.join(policies)})"


def publishers_in_words(node: Node, topic: str, wanted: str) -> str:
    """Who publishes `topic` (fully qualified), with which QoS, and why nothing comes where that shows.

    Args:
        node: that looks.
        topic: of the images.
        wanted: the type of message that is subscribed to, as sensor_msgs/msg/Image.
    """
    infos = node.get_publishers_info_by_topic(topic)
    if not infos:
        return "no publishers"
    return "publishers: " + ", ".join(_publisher_in_words(info, wanted) for info in infos)


def _publisher_in_words(info: TopicEndpointInfo, wanted: str) -> str:
    text = f"{endpoint_name(info)} ({describe(info.qos_profile)}"
    if info.topic_type != wanted:
        text += f"; it publishes {info.topic_type}, this node subscribes to {wanted}"
        if info.topic_type == COMPRESSED_IMAGE:
            text += ": set image_transport to compressed, and image_topics to the topic's name without /compressed"
    elif info.node_name == _UNKNOWN_NODE:
        text += "; one whose name is unknown belongs to another user or container, and its data do not come either: "
        text += "run both as one user, and share /dev/shm (docker: --ipc=host)"
    return f"{text})"


def endpoint_name(info: TopicEndpointInfo) -> str:
    """Fully qualified name of the node behind a topic endpoint."""
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def plausible_losses(change: int) -> int:
    """How many messages got lost by what the middleware says; of some losses it tells 2^31 - 1, which count as one."""
    return change if 0 <= change < _MOST_LOST else 1


def create_image_subscription(
    node: Node,
    message_type: type[Message],
    topic: str,
    callback: Callable[[Message], None],
    qos: QoSProfile,
    *,
    on_lost: Callable[[int], None],
    on_incompatible: Callable[[str], None],
) -> Subscription:
    """A subscription with events, as far as the middleware supports them.

    Args:
        on_lost: is told how many more messages got lost.
        on_incompatible: is told the name of the policy in which a publisher does not match.
    """

    def lost(event: QoSMessageLostInfo) -> None:
        on_lost(plausible_losses(event.total_count_change))

    def incompatible(event: QoSRequestedIncompatibleQoSInfo) -> None:
        on_incompatible(qos_policy_name_from_kind(event.last_policy_kind))

    attempts = (
        SubscriptionEventCallbacks(message_lost=lost, incompatible_qos=incompatible),
        SubscriptionEventCallbacks(incompatible_qos=incompatible),
        SubscriptionEventCallbacks(use_default_callbacks=False),
    )
    for events in attempts[:-1]:
        try:
            return node.create_subscription(message_type, topic, callback, qos, event_callbacks=events)
        except UnsupportedEventTypeError:
            continue
    return node.create_subscription(message_type, topic, callback, qos, event_callbacks=attempts[-1])


def create_publisher(
    node: Node, message_type: type, topic: str, qos: QoSProfile, *, on_incompatible: Callable[[str], None]
) -> Publisher:
    """A publisher that reports subscribers it cannot serve, as far as the middleware supports it.

    `on_incompatible` is told the name of the policy in which a subscriber does not match.
    """

    def incompatible(event: QoSOfferedIncompatibleQoSInfo) -> None:
        on_incompatible(qos_policy_name_from_kind(event.last_policy_kind))

    try:
        events = PublisherEventCallbacks(incompatible_qos=incompatible)
        return node.create_publisher(message_type, topic, qos, event_callbacks=events)
    except UnsupportedEventTypeError:
        events = PublisherEventCallbacks(use_default_callbacks=False)
        return node.create_publisher(message_type, topic, qos, event_callbacks=events)


def use_image_profile() -> None:
    """Lets Fast DDS carry images in shared memory, unless the user has chosen a profile file.

    The default shared-memory segment of Fast DDS is smaller than one image, so that most images get lost without a
    word. Has to be called before `rclpy.init`.
    """
    if any(variable in os.environ for variable in PROFILE_VARIABLES):
        return
    path = image_profile_path()
    if path is not None:
        os.environ.update({variable: str(path) for variable in PROFILE_VARIABLES})


def image_profile_path() -> Path | None:
    """The shipped `config/fastdds_images.xml`, of the source tree or of the installed package; None: not there."""
    candidates = [Path(__file__).resolve().parents[2]]
    try:
        from ament_index_python.packages import get_package_share_directory

        candidates.append(Path(get_package_share_directory("anydepth_perception")))
    except (ImportError, LookupError, OSError):  # no index, or not in it
        pass
    for folder in candidates:
        path = folder / "config" / "fastdds_images.xml"
        if path.is_file():
            return path
    return None
