"""Where the camera's images come from: aisle scenes, a video, a folder of images, a recording or a V4L2 device."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from anydepth_perception.aisle import AisleScene
from anydepth_perception.tools.camera.bag import BagSource, is_bag
from anydepth_perception.tools.camera.source_image import Source, SourceError, SourceImage, SourceOptions, resized

AISLE = "aisle"
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_DEVICE = re.compile(r"/dev/video(\d+)")
_DEFAULT_SIZE = (640, 480)


def open_source(name: str, options: SourceOptions, keep_on: Callable[[], bool] = lambda: True) -> Source:
    """Opens `aisle`, a V4L2 device /dev/videoN, a folder of images, a rosbag2 recording or a video file.

    `keep_on` is asked while a clip is rendered; False cuts it short.

    Raises:
        SourceError: there is no such source, or it is not readable.
    """
    if name == AISLE:
        return AisleSource(options, keep_on)
    device = _DEVICE.fullmatch(name)
    if device:
        return _open_device(name, int(device[1]), options)
    path = Path(name).expanduser()
    if not path.exists():
        kinds = f"{AISLE}, a video, a folder, a recording or /dev/videoN"
        raise SourceError(f"{name}: no such file or folder; a source is {kinds}")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise SourceError(f"{name}: no permission to read it")
    if is_bag(path):
        return BagSource(path, options.bag_topic, options)
    return FolderSource(path, options) if path.is_dir() else VideoSource(path, options)


class AisleSource(Source):
    """A drive along an aisle scene, endless."""

    def __init__(self, options: SourceOptions, keep_on: Callable[[], bool] = lambda: True) -> None:
        width, height = options.width or _DEFAULT_SIZE[0], options.height or _DEFAULT_SIZE[1]
        try:
            self._scene = AisleScene(options.seed, width, height)
        except ValueError as error:
            raise SourceError(str(error)) from error
        self._rate = options.rate
        self._next = 0
        self._clip: list[SourceImage] = []
        for index in range(round(options.prerender_s * options.rate)):
            if not keep_on():
                break
            self._clip.append(self._render(index))

    def read(self) -> SourceImage:
        """The next image of the drive; a prerendered clip goes forth and back, so that motion stays coherent."""
        index = self._next
        self._next += 1
        if self._clip:
            return self._clip[ping_pong(index, len(self._clip))]
        return self._render(index)

    def close(self) -> None:
        """Nothing to give up."""

    def _render(self, index: int) -> SourceImage:
        frame = self._scene.render(index / self._rate)
        return SourceImage(np.ascontiguousarray(frame.image), "rgb8", frame)


def ping_pong(index: int, length: int) -> int:
    """Position in a clip of `length` images that is played forth and back without showing its ends twice."""
    if length == 1:
        return 0
    phase = index % (2 * length - 2)
    return phase if phase < length else 2 * length - 2 - phase


class FolderSource(Source):
    """The images of a folder by name."""

    def __init__(self, folder: Path, options: SourceOptions) -> None:
        self._folder = folder
        self._options = options
        self._paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
        self._next = 0
        if not self._paths:
            raise SourceError(f"{folder}: holds no image; looked for {', '.join(_IMAGE_SUFFIXES)}")

    def read(self) -> SourceImage | None:
        """The next readable image; the others are passed over."""
        for _ in self._paths:
            if self._next >= len(self._paths):
                if not self._options.loop:
                    return None
                self._next = 0
            path = self._paths[self._next]
            self._next += 1
            pixels = cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if pixels is not None:
                return resized(pixels, "bgr8", self._options)
        raise SourceError(f"{self._folder}: none of its {len(self._paths)} images can be read")

    def close(self) -> None:
        """Nothing to give up."""


class VideoSource(Source):
    """The images of a video file."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._path = path
        self._options = options
        self._capture = _open_video(path)

    def read(self) -> SourceImage | None:
        """The next image; at the end the first again when looping."""
        read, pixels = self._capture.read()
        if not read and self._options.loop:
            self._capture.release()
            self._capture = _open_video(self._path)
            read, pixels = self._capture.read()
        return resized(pixels, "bgr8", self._options) if read else None

    def close(self) -> None:
        """Closes the file."""
        self._capture.release()


def _open_video(path: Path) -> cv2.VideoCapture:
    # What is no video is our one line to tell; OpenCV and FFmpeg would write several of their own before it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    previous = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # FFmpeg alone: the other readers would take a name like img_01.png for a sequence of images.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if capture.isOpened() and capture.grab():
            capture.release()
            return cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    finally:
        cv2.utils.logging.setLogLevel(previous)
    raise SourceError(f"{path}: not a video that OpenCV can read")


class DeviceSource(Source):
    """A V4L2 device."""

    def __init__(self, name: str, capture: cv2.VideoCapture, options: SourceOptions) -> None:
        self._name = name
        self._capture = capture
        self._options = options

    def read(self) -> SourceImage:
        """The next image of the device, waiting for it."""
        read, pixels = self._capture.read()
        if not read:
            raise SourceError(f"{self._name}: the device gives no image any more")
        return resized(pixels, "bgr8", self._options)

    def close(self) -> None:
        """Closes the device."""
        self._capture.release()


def _open_device(name: str, number: int, options: SourceOptions) -> DeviceSource:
    if not os.path.exists(name):
        raise SourceError(f"{name}: no such device")
    if not os.access(name, os.R_OK | os.W_OK):
        raise SourceError(f"{name}: no permission; is the user in the group video?")
    capture = cv2.VideoCapture(number, cv2.CAP_V4L2)
    for setting, value in (
        (cv2.CAP_PROP_FRAME_WIDTH, options.width),
        (cv2.CAP_PROP_FRAME_HEIGHT, options.height),
        (cv2.CAP_PROP_FPS, options.rate),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ):
        if value:
            capture.set(setting, value)
    if not capture.isOpened():
        raise SourceError(f"{name}: cannot be opened as a camera; perhaps another program uses it")
    return DeviceSource(name, capture, options)
