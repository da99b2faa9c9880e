"""Sources of the camera: what they give, when they end, and what is refused."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest

from anydepth_perception.tools.camera.sources import SourceError, SourceOptions, open_source, ping_pong


def write_images(folder, count=3):
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:02d}.png"), np.full((48, 64, 3), 10 * (index + 1), np.uint8))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for index in range(4):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    return path


def levels(source, count):
    images = [source.read() for _ in range(count)]
    return [None if image is None else int(image.pixels[24, 32, 0]) for image in images]


def test_aisle_gives_images_with_truth_of_the_asked_size():
    source = open_source("aisle", SourceOptions(width=96, height=64, seed=3))
    image = source.read()
    assert image.pixels.shape == (64, 96, 3) and image.encoding == "rgb8"
    assert image.truth is not None and len(image.truth.boxes) == len(image.truth.class_ids)


def test_prerendered_aisle_is_the_drive_itself_forth_and_back():
    options = {"width": 64, "height": 64, "rate": 10.0, "seed": 5}
    clip = open_source("aisle", SourceOptions(**options, prerender_s=0.3))
    drive = open_source("aisle", SourceOptions(**options))
    there = [drive.read().pixels for _ in range(3)]
    shown = [clip.read().pixels for _ in range(6)]
    for image, expected in zip(shown, [there[0], there[1], there[2], there[1], there[0], there[1]]):
        np.testing.assert_array_equal(image, expected)


def test_rendering_a_clip_stops_when_told():
    asked = iter([True, False])
    source = open_source("aisle", SourceOptions(width=64, height=64, prerender_s=100.0), keep_on=lambda: next(asked))
    assert source.read().pixels.shape == (64, 64, 3)


def test_ping_pong_shows_the_ends_once():
    assert [ping_pong(index, 4) for index in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert [ping_pong(index, 1) for index in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("loop", "expected"), [(False, [10, 20, 30, None]), (True, [10, 20, 30, 10])])
def test_folder_gives_its_images_by_name(tmp_path, loop, expected):
    write_images(tmp_path)
    (tmp_path / "notes.txt").write_text("no image")
    assert levels(open_source(str(tmp_path), SourceOptions(loop=loop)), 4) == expected


def test_folder_passes_over_an_image_that_cannot_be_read(tmp_path):
    write_images(tmp_path)
    (tmp_path / "01.png").write_bytes(b"broken")
    assert levels(open_source(str(tmp_path), SourceOptions()), 3) == [10, 30, None]


def test_folder_of_broken_images_is_an_error_even_when_looping(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"broken")
    with pytest.raises(SourceError, match="none of its 2 images"):
        open_source(str(tmp_path), SourceOptions(loop=True)).read()


@pytest.mark.parametrize("loop", [False, True])
def test_video_ends_or_starts_again(video, loop):
    source = open_source(str(video), SourceOptions(loop=loop))
    first = levels(source, 4)
    assert all(abs(level - 40 * index) <= 4 for index, level in enumerate(first))
    assert levels(source, 1) == ([first[0]] if loop else [None])
    source.close()


def test_size_can_be_asked_for(video):
    image = open_source(str(video), SourceOptions(width=32)).read()
    assert image.pixels.shape == (48, 32, 3) and image.encoding == "bgr8"


def test_source_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(SourceError, match=r"gone\.mp4: no such file or folder"):
        open_source(str(tmp_path / "gone.mp4"), SourceOptions())


def test_empty_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="holds no image"):
        open_source(str(tmp_path), SourceOptions())


def test_file_that_is_no_video_is_refused(tmp_path):
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(SourceError, match="not a video"):
        open_source(str(tmp_path / "notes.mp4"), SourceOptions())


def test_truncated_video_is_refused_or_ends(video, tmp_path):
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[:200])
    with pytest.raises(SourceError, match="not a video"):
        open_source(str(cut), SourceOptions())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0)
    try:
        with pytest.raises(SourceError, match="no permission"):
            open_source(str(tmp_path), SourceOptions())
    finally:
        tmp_path.chmod(0o700)


def test_folder_that_the_system_denies_is_refused_whoever_runs_the_test(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.R_OK)
    with pytest.raises(SourceError, match="no permission"):
        open_source(str(tmp_path), SourceOptions())


def test_device_that_is_not_there_is_refused():
    with pytest.raises(SourceError, match="no such device"):
        open_source("/dev/video987", SourceOptions())
