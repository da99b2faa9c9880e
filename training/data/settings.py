"""What decides the samples of a run: where images come from, how they are augmented, which sizes they get."""

from __future__ import annotations

from dataclasses import dataclass, field


def _check_probabilities(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; it must lie in [0, 1]")


@dataclass(frozen=True)
class DetrAugmentation:
    """RT-DETR's augmentation; the defaults are its recipe on COCO.

    Attributes:
        photometric: probability of each change of brightness, contrast, saturation, hue and order of the channels.
        zoom_out: probability of more room around the image, which is black.
        max_zoom_out: up to how many times the image's sides.
        crop: probability of a crop that keeps a drawn overlap with at least one object.
        flip: probability of a horizontal mirror.
        sides: lengths of the square input in pixels, one drawn for each batch; empty = always `image_size`.
        plain_epochs: the last epochs of a run, which only mirror (RT-DETRv2 ends so).
    """

    photometric: float = 0.5
    zoom_out: float = 0.5
    max_zoom_out: float = 4.0
    crop: float = 0.8
    flip: float = 0.5
    sides: tuple[int, ...] = (480, 512, 544, 576, 608, 640, 640, 640, 672, 704, 736, 768, 800)
    plain_epochs: int = 0

    def __post_init__(self) -> None:
        _check_probabilities(self, "photometric", "zoom_out", "crop", "flip")
        if self.max_zoom_out < 1:
            raise ValueError(f"max_zoom_out is {self.max_zoom_out}; it must be at least 1")
        for side in self.sides:
            if side < 32 or side % 32:
                raise ValueError(f"sides has {side}; each must be a positive multiple of 32")
        if self.plain_epochs < 0:
            raise ValueError(f"plain_epochs is {self.plain_epochs}; it must be 0 or more")


@dataclass(frozen=True)
class YoloAugmentation:
    """YOLOv12's augmentation with boxes alone (its copy-paste needs masks); the defaults are the recipe of l and x.

    Attributes:
        hue: largest change, as a share of the colour circle.
        saturation: largest relative change.
        value: largest relative change of brightness.
        translate: largest shift, as a share of the input's sides.
        scale: images shrink to 1 - scale and grow to 1 + scale.
        flip: probability of a horizontal mirror.
        mosaic: probability that four images make up one.
        mixup: probability that another such image shines through.
        plain_epochs: the last epochs of a run, without mosaic and mixup.
    """

    hue: float = 0.015
    saturation: float = 0.7
    value: float = 0.4
    translate: float = 0.1
    scale: float = 0.9
    flip: float = 0.5
    mosaic: float = 1.0
    mixup: float = 0.15
    plain_epochs: int = 10

    def __post_init__(self) -> None:
        _check_probabilities(self, "hue", "saturation", "value", "translate", "flip", "mosaic", "mixup")
        if not 0 <= self.scale < 1:
            raise ValueError(f"scale is {self.scale}; it must lie in [0, 1)")
        if self.plain_epochs < 0:
            raise ValueError(f"plain_epochs is {self.plain_epochs}; it must be 0 or more")


@dataclass(frozen=True)
class CocoSettings:
    """Training images with boxes in COCO's format.

    Attributes:
        annotations: the JSON file.
        folder: where its images lie, by the file names of the JSON file.
        validation_annotations: the JSON file to validate on while training; empty = no validation.
        validation_folder: where its images lie.
        skip_broken: a file that cannot be decoded is replaced by the next image; otherwise it ends the run.
        detr: augment as RT-DETR does.
        yolo: augment as YOLOv12 does; with neither, images are fitted to the input as they are.
    """

    annotations: str
    folder: str
    validation_annotations: str = ""
    validation_folder: str = ""
    skip_broken: bool = False
    detr: DetrAugmentation | None = None
    yolo: YoloAugmentation | None = None

    def __post_init__(self) -> None:
        if self.detr is not None and self.yolo is not None:
            raise ValueError("detr and yolo are both given; choose one augmentation")
        if bool(self.validation_annotations) != bool(self.validation_folder):
            raise ValueError("validation_annotations and validation_folder belong together")


@dataclass(frozen=True)
class SceneSettings:
    """Training on aisle scenes: scenes of the training split, drawn as the iterations go, never twice.

    Attributes:
        frame_sizes: (width, height) of the rendered frames; each image draws one. A frame that is not of the
            network's size is letterboxed as at run time.
        frame_weights: relative frequency of each frame size.
        flip: probability of a horizontal mirror.
    """

    frame_sizes: tuple[tuple[int, int], ...] = ((320, 320),)
    frame_weights: tuple[float, ...] = (1.0,)
    flip: float = 0.5


@dataclass(frozen=True)
class SampleSettings:
    """Everything that decides the samples of a run and the batches that they make up.

    Attributes:
        iterations: batches of the run.
        batch_size: images of a batch, over all processes.
        seed: of whatever is drawn.
        image_size: (height, width) in pixels of the network's input.
        small_image_size: that of the first `small_iterations`.
        small_iterations: 0 for `image_size` throughout.
        resize: how an image is fitted to it: `letterbox` or `stretch`.
        workers: processes that make the images; 0 = the one that asks for them.
        scenes: the aisle scenes to train on.
        coco: images with boxes to train on instead.
    """

    iterations: int
    batch_size: int
    seed: int = 0
    image_size: tuple[int, int] = (320, 320)
    small_image_size: tuple[int, int] = (320, 320)
    small_iterations: int = 0
    resize: str = "letterbox"
    workers: int = 0
    scenes: SceneSettings = field(default_factory=SceneSettings)
    coco: CocoSettings | None = None

    @property
    def count(self) -> int:
        """Samples of the whole run."""
        return self.iterations * self.batch_size

    def iteration_of(self, position: int) -> int:
        """The iteration whose batch sample `position` of the run belongs to."""
        return position // self.batch_size

    def image_size_at(self, iteration: int) -> tuple[int, int]:
        """(height, width) of the images of one iteration."""
        return self.small_image_size if iteration < self.small_iterations else self.image_size
