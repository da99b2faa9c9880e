"""One camera of the node: its topics, its frames' counts, and whether images arrive."""

from __future__ import annotations

import math
import traceback
from collections import deque
from collections.abc import Callable, Sequence

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from vision_msgs.msg import Detection2DArray, LabelInfo

from anydepth_perception.detection.detector import DetectionResult, ImageError
from anydepth_perception.detection.images import BadImageError, Frame, fill_image
from anydepth_perception.detection.raw_images import MONO16
from anydepth_perception.ros import messages, qos
from anydepth_perception.ros.diagnostics import Health, WarningThrottle, clock_health, worst
from anydepth_perception.ros.process import one_line
from anydepth_perception.serving.scheduler import CountedAge, PendingFrame
from anydepth_perception.serving.settings import ParameterError, Settings
from anydepth_perception.serving.statistics import FrameReport, FrameStatistics
from anydepth_perception.serving.worker import steady_s

IMAGE_TIMEOUT_S = 3.0
"""Seconds without an image after which diagnostics warn."""

MAX_FRAME_ID = 256
"""Characters: a frame_id is copied into each detection, so a longer one is refused."""

_RECENT = 40
"""Frames that are looked at for whether nearly all of them are late."""

_NEARLY_ALL = 0.9
_HINTED_FRAMES = 30
"""Of 16-bit images that are looked at for bits that none of them uses."""

MAX_AGE_S = 10.0
"""A stamp older than this is taken for one of another clock, and the time of arrival is used instead."""


def output_prefixes(image_topics: Sequence[str]) -> list[str]:
    """What stands before the output topics of each camera.

    Nothing for a single camera. Of several, each camera has the namespace of its topic, as `left/` of
    `left/image_raw`; where namespaces are missing or equal, the whole topic becomes the namespace.
    """
    if len(image_topics) == 1:
        return [""]
    parents = [topic.rpartition("/")[0] for topic in image_topics]
    distinct = all(parent not in ("", "~") for parent in parents) and len(set(parents)) == len(parents)
    return [f"{parent}/" for parent in (parents if distinct else image_topics)]


def check_distinct(node: Node, image_topics: Sequence[str]) -> None:
    """Refuses names of one and the same topic, as `eye` and `/eye` may be. Raises: ParameterError."""
    resolved: dict[str, str] = {}
    for topic in image_topics:
        name = node.resolve_topic_name(topic)
        if name in resolved:
            raise ParameterError(f"image_topics names {name} twice, as {resolved[name]} and as {topic}")
        resolved[name] = topic


def usable_age_s(stamp_ns: int, now_ns: int) -> float | None:
    """Seconds from a camera's stamp to now; None where the stamp is unset, in the future or older than `MAX_AGE_S`."""
    age_s = (now_ns - stamp_ns) * 1e-9
    return age_s if stamp_ns != 0 and 0.0 <= age_s <= MAX_AGE_S else None


class Camera:
    """Subscription, publishers and counts of one camera, from activation to deactivation."""

    def __init__(
        self,
        node: Node,
        index: int,
        *,
        topic: str,
        prefix: str,
        settings: Settings,
        class_names: Sequence[str],
        frames: Publisher,
        enqueue: Callable[[PendingFrame[Image | CompressedImage]], bool],
        counted_age: Callable[[int], CountedAge | None],
    ) -> None:
        """Advertises the outputs under `prefix` and subscribes to `topic`.

        Args:
            index: the camera's index in the pending frames.
            frames: publisher of the reports on single frames, shared by the cameras.
            enqueue: takes a frame without waiting; True when it replaced one that waited.
            counted_age: how old the stamps of a camera are, given its index, where scheduling does not count all of it.
        """
        self.statistics = FrameStatistics()
        self._node = node
        self._index = index
        self._settings = settings
        self._class_names = tuple(class_names)
        self._messages = messages.DetectionMessages(messages.class_ids(class_names, settings.class_id_format))
        self._frames = frames
        self._enqueue = enqueue
        self._counted_age = counted_age
        self._warnings = WarningThrottle()
        self._warned_of_stamp = False
        self._last_image_s = steady_s()
        self._lost_before = 0
        self._unmatched_input = self._unmatched_output = False
        self._failure = self._refusal = ""
        self._looked_at = self._brightest = 0
        self._recent: deque[tuple[float, FrameReport]] = deque(maxlen=_RECENT)
        self._image_qos = qos.image_qos(settings.image_qos)
        self._detections = qos.create_publisher(
            node, Detection2DArray, f"{prefix}detections", qos.DETECTIONS, on_incompatible=self._on_incompatible_output
        )
        self._label_info = node.create_publisher(LabelInfo, f"{prefix}label_info", qos.LATCHED)
        self._debug_image = node.create_publisher(Image, f"{prefix}debug_image", qos.DEBUG_IMAGE)
        self._publish_label_info(settings.score_threshold)
        compressed = settings.image_transport == "compressed"
        # As in image_transport, whoever remaps the image topic gets the compressed one beside it.
        image_topic = f"{node.resolve_topic_name(topic)}/compressed" if compressed else topic
        self._subscription = qos.create_image_subscription(
            node,
            CompressedImage if compressed else Image,
            image_topic,
            self._on_image,
            self._image_qos,
            on_lost=lambda lost: self.statistics.count("lost", lost),
            on_incompatible=self._on_incompatible_input,
        )
        self.topic: str = self._subscription.topic_name
        """Fully qualified name of the image topic, after remapping."""

    @property
    def deadline_ms(self) -> float:
        """The deadline of this camera that is in force, milliseconds; 0 is off."""
        return self._settings.deadline_of_camera_ms(self._index)

    def update(self, settings: Settings) -> None:
        """Takes what is live of new settings: the deadline, and the score threshold that the class names are told with.

        The class names are latched, so that who joins later gets them too.
        """
        if settings.score_threshold != self._settings.score_threshold:
            self._publish_label_info(settings.score_threshold)
        if settings.deadline_of_camera_ms(self._index) != self.deadline_ms:
            self._recent.clear()
        self._settings = settings

    def _publish_label_info(self, score_threshold: float) -> None:
        stamp = self._node.get_clock().now().to_msg()
        self._label_info.publish(messages.label_info(self._class_names, score_threshold, stamp))

    def publish(self, pending: PendingFrame[Image | CompressedImage], result: DetectionResult) -> None:
        """Publishes the detections under the image's header."""
        self._detections.publish(self._messages.fill(pending.message.header, result.detections))

    def report(
        self, pending: PendingFrame[Image | CompressedImage], frame: Frame, result: DetectionResult, report: FrameReport
    ) -> None:
        """Counts a served frame; the report and the annotated image are made only for subscribers."""
        self.statistics.served(report, steady_s())
        self._failure = self._refusal = ""
        self._recent.append((pending.age_s, report))
        self._look_at_bits(pending.message, frame)
        header = pending.message.header
        if self._frames.get_subscription_count():
            self._frames.publish(messages.frame_status(self.topic, header, report))
        if self._debug_image.get_subscription_count():
            caption = f"{report.depth} {report.latency_ms:.0f} ms"
            canvas, encoding = messages.annotate(frame, result.detections, self._class_names, caption)
            message = Image(header=header)
            fill_image(message, canvas, encoding)
            self._debug_image.publish(message)

    def bad(self, pending: PendingFrame[Image | CompressedImage], error: ImageError) -> None:
        """Counts a frame that could not be decoded."""
        self._refuse(error)

    def _refuse(self, error: ImageError) -> None:
        """Counts a frame that is not served, and warns of it: each encoding and each kind of other faults by itself."""
        self.statistics.count("bad")
        self._refusal = one_line(error)
        kind = getattr(error, "kind", "size")
        if self._warnings.allows(self._refusal if kind == "encoding" else f"bad {kind}", steady_s()):
            bad = self.statistics.summary(steady_s()).counts.bad
            self._node.get_logger().warning(f"bad frame on {self.topic} ({bad} so far): {self._refusal}")

    def _look_at_bits(self, message: Image | CompressedImage, frame: Frame) -> None:
        """Hints at sensors with fewer than 16 bits, whose images are all but black when 16 are expected."""
        if self._looked_at >= _HINTED_FRAMES or self._settings.mono16_bits < 16:
            return
        if not isinstance(message, Image) or message.encoding not in MONO16:
            return
        self._looked_at += 1
        self._brightest = max(self._brightest, int(frame.image.max()))
        if self._looked_at == _HINTED_FRAMES and self._brightest < 64:
            bits = 8 + self._brightest.bit_length()
            self._node.get_logger().warning(
                f"{message.encoding} images of {self.topic} use no more than {bits} of 16 bits and are nearly black; "
                f"does the sensor have so many? Then set mono16_bits to {bits}"
            )

    def failed(self, pending: PendingFrame[Image | CompressedImage], error: Exception) -> None:
        """Counts a frame that the detector failed on."""
        self.statistics.count("failed")
        self._failure = f"{type(error).__name__}: {one_line(error)}"
        if self._warnings.allows(f"failed {type(error).__name__}", steady_s()):
            self._node.get_logger().error(f"a frame of {self.topic} failed: {self._failure}")
            self._node.get_logger().debug("".join(traceback.format_exception(error)))

    def health(self) -> Health:
        """Endpoints whose QoS does not match, no image for `IMAGE_TIMEOUT_S`, frames that fail, old stamps; else OK."""
        silent_s = steady_s() - self._last_image_s
        if self._unmatched_output:
            topic = self._detections.topic_name
            subscribers = qos.incompatible_subscribers(self._node, topic, qos.DETECTIONS)
            self._unmatched_output = bool(subscribers)
            if subscribers:
                offered = qos.describe(qos.DETECTIONS)
                text = f"incompatible QoS on {topic}: published as {offered}, requested by {'; '.join(subscribers)}"
                return Health(DiagnosticStatus.ERROR, text)
        if silent_s <= IMAGE_TIMEOUT_S:
            clock = clock_health(self.topic, self._counted_age(self._index))
            healths = [health for health in (self._refusing(), self._late(), clock) if health is not None]
            return self._failing() or worst([*healths, self._losses()])
        if self._unmatched_input:
            publishers = qos.incompatible_publishers(self._node, self.topic, self._image_qos)
            self._unmatched_input = bool(publishers)
            if publishers:
                wanted = qos.describe(self._image_qos)
                text = f"incompatible QoS on {self.topic}: subscribed as {wanted}, offered by {'; '.join(publishers)}"
                return Health(DiagnosticStatus.ERROR, text)
        compressed = self._settings.image_transport == "compressed"
        wanted = qos.COMPRESSED_IMAGE if compressed else qos.IMAGE
        publishers_text = qos.publishers_in_words(self._node, self.topic, wanted)
        text = f"no image on {self.topic} for {silent_s:.0f} s; {publishers_text}"
        return worst([self._losses(), Health(DiagnosticStatus.WARN, text)])

    def _failing(self) -> Health | None:
        """An error from a frame that failed until the next one that is served."""
        failure = self._failure
        if not failure:
            return None
        failed = self.statistics.summary(steady_s()).counts.failed
        return Health(DiagnosticStatus.ERROR, f"frames of {self.topic} fail ({failed} so far): {failure}")

    def _refusing(self) -> Health | None:
        """A warning from a frame that is refused until the next one that is served."""
        refusal = self._refusal
        if not refusal:
            return None
        bad = self.statistics.summary(steady_s()).counts.bad
        return Health(DiagnosticStatus.WARN, f"frames of {self.topic} are refused ({bad} so far): {refusal}")

    def _late(self) -> Health | None:
        """A warning where nearly all of the last frames missed their deadline, with the cause that shows."""
        recent, deadline_ms = list(self._recent), self.deadline_ms
        missed = sum(report.missed for _, report in recent)
        if not deadline_ms or len(recent) < _RECENT or missed < _NEARLY_ALL * len(recent):
            return None
        age_ms = sorted(age_s for age_s, _ in recent)[len(recent) // 2] * 1e3
        if age_ms > deadline_ms:
            cause = f"they are {age_ms:.0f} ms old on arrival; is the camera's clock behind, or its transport slow?"
        else:
            cause = "no depth is fast enough under the load of now"
        frames = f"{missed} of the last {len(recent)} frames of {self.topic}"
        return Health(DiagnosticStatus.WARN, f"{frames} missed the deadline of {deadline_ms:g} ms: {cause}")

    def _losses(self) -> Health:
        """A warning while images get lost on their way; it goes when none was lost since the last look."""
        lost = self.statistics.summary(steady_s()).counts.lost
        lately, self._lost_before = lost - self._lost_before, lost
        if not lately:
            return Health(DiagnosticStatus.OK, "images arrive")
        advice = "do the publisher and this node share a DDS profile that holds images, as config/fastdds_images.xml?"
        text = f"{lately} images of {self.topic} lost on their way ({lost} so far); {advice}"
        return Health(DiagnosticStatus.WARN, text)

    def close(self) -> None:
        """Gives the topics up."""
        self._node.destroy_subscription(self._subscription)
        for publisher in (self._detections, self._label_info, self._debug_image):
            self._node.destroy_publisher(publisher)

    def _on_image(self, message: Image | CompressedImage) -> None:
        arrival_s = steady_s()
        self._last_image_s = arrival_s
        age_s = self._age_s(message.header)
        self.statistics.count("received")
        frame_id = message.header.frame_id
        if len(frame_id) > MAX_FRAME_ID:
            self._refuse(BadImageError("header", f"frame_id has {len(frame_id)} characters, at most {MAX_FRAME_ID}"))
            return
        deadline_ms = self.deadline_ms
        deadline_s = arrival_s - age_s + deadline_ms * 1e-3 if deadline_ms else math.inf
        if self._enqueue(PendingFrame(self._index, message, arrival_s, age_s, deadline_s)):
            self.statistics.count("replaced")

    def _age_s(self, header: Header) -> float:
        stamp_ns = header.stamp.sec * 1_000_000_000 + header.stamp.nanosec
        now_ns = self._node.get_clock().now().nanoseconds
        age_s = usable_age_s(stamp_ns, now_ns)
        if age_s is not None:
            return age_s
        self.statistics.count("unstamped")
        if not self._warned_of_stamp:
            self._warned_of_stamp = True
            self._node.get_logger().warning(
                f"stamps of {self.topic} cannot be used ({stamp_ns * 1e-9:.3f} s, now {now_ns * 1e-9:.3f} s; accepted "
                f"is an age of 0 to {MAX_AGE_S:.0f} s), so latency counts from arrival; do the camera and this node "
                f"agree in use_sim_time?"
            )
        return 0.0

    def _on_incompatible_input(self, policy: str) -> None:
        self._unmatched_input = True
        self._node.get_logger().error(
            f"a publisher of {self.topic} has an incompatible QoS policy: {policy}; no images come from it"
        )

    def _on_incompatible_output(self, policy: str) -> None:
        self._unmatched_output = True
        self._node.get_logger().error(
            f"a subscriber of {self._detections.topic_name} has an incompatible QoS policy: {policy}; it gets nothing"
        )
