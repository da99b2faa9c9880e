"""A camera for tests and demos: publishes aisle scenes, videos, folders, recordings or a V4L2 device as ROS images."""

from __future__ import annotations

import argparse
import functools
import math
import sys

import cv2
import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.logging import get_logger
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import SetBool
from vision_msgs.msg import Detection2DArray

from anydepth_perception.aisle import CLASS_NAMES, AisleFrame
from anydepth_perception.detection.detector import Detections
from anydepth_perception.detection.images import byte_array, fill_image
from anydepth_perception.ros import qos
from anydepth_perception.ros.messages import DetectionMessages
from anydepth_perception.ros.process import ProcessNode, StartError, StopRequest, one_line, own_arguments, run_node
from anydepth_perception.tools.arguments import number, whole_number
from anydepth_perception.tools.camera.sources import AISLE, SourceError, SourceImage, SourceOptions, open_source

IGNORE = "ignore"
"""class_id of regions in the ground truth that are neither right nor wrong to detect."""

DEFAULT_RATE_HZ = 15.0
_JPEG_QUALITY = 90
_PUBLISHER_DEPTH = 4


class CameraOptions(argparse.Namespace):
    """What the command line says, with the units of `SourceOptions`; `frames` is 0 for no end."""

    source: str
    width: int
    height: int
    rate: float | None
    seed: int
    prerender: float
    loop: bool
    frames: int
    paused: bool
    wait: bool
    topic: str
    frame_id: str
    qos: str
    bag_topic: str
    compressed: bool
    ground_truth: bool


class CameraNode(ProcessNode):
    """Publishes one image per period; the service `~/enable` starts and stops it."""

    def __init__(self, stop: StopRequest, options: CameraOptions) -> None:
        """Opens the source and advertises the topics.

        Raises:
            StartError: the source cannot be opened.
        """
        source_options = SourceOptions(
            width=options.width,
            height=options.height,
            rate=options.rate or DEFAULT_RATE_HZ,
            seed=options.seed,
            loop=options.loop,
            prerender_s=options.prerender,
            bag_topic=options.bag_topic,
        )
        if options.prerender:
            get_logger("camera").info(f"rendering {options.prerender:g} s of {options.source} first")
        try:
            self._source = open_source(options.source, source_options, keep_on=lambda: not stop.requested)
        except SourceError as error:
            raise StartError(str(error)) from error
        super().__init__("camera")
        self._frame_id = options.frame_id
        self._frames_left = options.frames or math.inf
        self._published = 0
        self._enabled = not options.paused
        self._waits = options.wait
        profile = qos.image_qos(options.qos, _PUBLISHER_DEPTH)
        self._images = self.create_publisher(Image, options.topic, profile)
        self._compressed = None
        if options.compressed:
            self._compressed = self.create_publisher(CompressedImage, f"{self._images.topic_name}/compressed", profile)
        self._truth = None
        if options.ground_truth:
            self._truth = self.create_publisher(Detection2DArray, "ground_truth", qos.DETECTIONS)
        self._truth_messages = DetectionMessages((*CLASS_NAMES, IGNORE))
        self.create_service(SetBool, "~/enable", self._on_enable)
        rate_hz = options.rate or self._source.rate_hz or DEFAULT_RATE_HZ
        self.create_timer(1.0 / rate_hz, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
        state = "paused" if options.paused else "running"
        self.get_logger().info(f"{options.source} at {rate_hz:.4g} Hz on {self._images.topic_name}: {state}")

    def close(self) -> bool:
        """Gives the source up."""
        self._source.close()
        self.get_logger().info(f"published {self._published} images")
        return True

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = f"{'running' if request.data else 'paused'} after {self._published} images"
        return response

    def _on_timer(self) -> None:
        if not self._enabled or self.finished or self._is_waiting():
            return
        try:
            image = self._source.read()
        except SourceError as error:
            self.get_logger().error(one_line(error))
            self.exit_code = 1
            image = None
        if image is None:
            self.finished = True
            return
        self._publish(image)
        self._published += 1
        self.finished = self._published >= self._frames_left

    def _is_waiting(self) -> bool:
        """Whether nobody has subscribed yet, and the first image is to wait for somebody."""
        if self._waits:
            publishers = [self._images] if self._compressed is None else [self._images, self._compressed]
            self._waits = not any(publisher.get_subscription_count() for publisher in publishers)
        return self._waits

    def _publish(self, image: SourceImage) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        if self._truth is not None and image.truth is not None:
            # First, so that whoever compares has it when the detections come.
            self._truth.publish(truth_message(self._truth_messages, header, image.truth))
        message = Image(header=header)
        fill_image(message, image.pixels, image.encoding)
        self._images.publish(message)
        if self._compressed is not None:
            pixels = image.pixels if image.encoding == "bgr8" else cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
            compressed = CompressedImage(header=header, format=f"{image.encoding}; jpeg compressed bgr8")
            compressed.data = byte_array(data)
            self._compressed.publish(compressed)


def truth_message(messages: DetectionMessages, header: Header, truth: AisleFrame) -> Detection2DArray:
    """The true objects as detections of score 1, and the ignored regions with the class_id `IGNORE`."""
    ignored = len(truth.ignore_boxes)
    ignore_ids = np.full(ignored, len(CLASS_NAMES), np.int64)
    objects = Detections(
        boxes_xyxy=np.concatenate([truth.boxes.reshape(-1, 4), truth.ignore_boxes.reshape(-1, 4)]),
        scores=np.ones(len(truth.boxes) + ignored),
        class_ids=np.concatenate([truth.class_ids, ignore_ids]),
    )
    return messages.fill(header, objects)


def parse_options(args: list[str]) -> CameraOptions:
    """The command line without the program and the ROS arguments."""
    parser = argparse.ArgumentParser(prog="camera", description=__doc__)
    parser.add_argument("--source", default=AISLE,
                        help="aisle, a video, a folder of images, a rosbag2 recording or /dev/videoN")
    parser.add_argument("--bag-topic", default="", help="image topic of a recording that has several")
    parser.add_argument("--width", type=whole_number(0, 16384), default=0, help="pixels, 0 for the source's own")
    parser.add_argument("--height", type=whole_number(0, 16384), default=0, help="pixels, 0 for the source's own")
    parser.add_argument("--rate", type=number(0, 1000, above=True),
                        help=f"images per second (default: as recorded, else {DEFAULT_RATE_HZ:g})")
    parser.add_argument("--seed", type=whole_number(0, 2**31 - 1), default=0, help="of the aisle scene")
    parser.add_argument("--prerender", type=number(0, 3600), default=0.0, metavar="SECONDS",
                        help="render that much of the aisle first and play it forth and back; 0 renders as it goes")
    parser.add_argument("--loop", action="store_true", help="start files again at their end")
    parser.add_argument("--frames", type=whole_number(0, 2**31 - 1), default=0, help="end after so many, 0 for never")
    parser.add_argument("--paused", action="store_true", help="wait for the service ~/enable")
    parser.add_argument("--wait", action="store_true", help="begin when somebody has subscribed")
    parser.add_argument("--topic", default="image_raw", help="image topic")
    parser.add_argument("--frame-id", default="camera_optical_frame", help="frame_id of the images")
    parser.add_argument("--qos", choices=("best_effort", "reliable"), default="best_effort", help="reliability offered")
    parser.add_argument("--compressed", action="store_true", help="publish JPEG on <topic>/compressed too")
    parser.add_argument("--ground-truth", action="store_true",
                        help="publish the true boxes of the aisle on ground_truth; class_id 'ignore' marks regions")
    options = parser.parse_args(args, CameraOptions())
    if options.ground_truth and options.source != AISLE:
        parser.error(f"--ground-truth: only the source {AISLE} knows the true boxes")
    if options.prerender and options.source != AISLE:
        parser.error(f"--prerender: only the source {AISLE} is rendered")
    return options


def main(args: list[str] | None = None) -> None:
    """Runs the camera until SIGINT, SIGTERM or the end of the source."""
    arguments = sys.argv[1:] if args is None else args
    options = parse_options(own_arguments(args))
    sys.exit(run_node(functools.partial(CameraNode, options=options), arguments))
