"""Training recipes: typed settings read from YAML, where an unknown or ill-typed key is an error that names it."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from training.data.settings import CocoSettings
from training.families import build_model
from training.losses.distillation import DistillationSettings
from training.losses.settings import LossSettings
from training.models.detector import AnyDepthDetector
from training.models.fine import FineSettings
from training.models.stage import AnyDepthSettings

RECIPES = Path(__file__).parent


class RecipeError(ValueError):
    """A recipe that cannot be used; the message names the key and what is accepted."""


@dataclass(frozen=True)
class DataSettings:
    """Where images come from: scenes of the training split, drawn as the iterations go, never twice.

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
class OptimizerSettings:
    """The optimizer with a linear warm-up and a falling learning rate; no weight decay on norms and biases.

    Attributes:
        kind: `adamw`, or `sgd` with Nesterov's momentum.
        momentum: of `sgd`.
        learning_rate: at the end of the warm-up.
        backbone_rate: share of it that the stem and the backbone's stages get.
        schedule: how the learning rate falls after the warm-up: `cosine`, `linear` or `constant`.
        final_fraction: of the learning rate, at the last iteration.
        warmup_iterations: length of the warm-up.
        weight_decay: on convolution and linear weights.
        clip_norm: upper bound of the gradient's norm over all parameters.
    """

    kind: str = "adamw"
    momentum: float = 0.9
    learning_rate: float = 2e-3
    backbone_rate: float = 1.0
    schedule: str = "cosine"
    final_fraction: float = 0.02
    warmup_iterations: int = 200
    weight_decay: float = 0.02
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        for name, accepted in (("kind", ("adamw", "sgd")), ("schedule", ("cosine", "linear", "constant"))):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be one of {', '.join(accepted)}")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    Attributes:
        model: a name that `build_model` knows.
        fine: FINE in the neck.
        fine_settings: what kind of FINE; the paper's by default.
        any_depth: train super-net and base-net together; False trains the plain baseline.
        passes: which of `super` and `base` a step runs. `base` alone trains a plain network of the base-net's depth.
        base_from: iteration at which the base-net's pass begins; a step before it has the super-net's alone, at half
            the cost.
        switch_norms: batch norms of their own for the essential paths.
        dedicated_aggregators: aggregators of their own for the essential paths of YOLO's longer stages.
        distillation: draws the base-net towards the super-net; nothing if it is left out.
        initial_weights: a weights file to start from. Tensors that it has not, or in another shape (class outputs for
            other classes), stay random.
        image_size: (height, width) of the network's input, multiples of 32.
        resize: how an image is fitted to it: `letterbox` (aspect ratio kept, borders grey) or `stretch`.
        small_image_size: the size of the first `small_iterations`, which costs less (progressive resizing).
        small_iterations: iterations at `small_image_size`; 0 trains at `image_size` throughout.
        iterations: optimizer steps.
        batch_size: images a step, over all processes.
        accumulate: parts in which a process runs its share of them one after another, to save memory.
        sync_norms: batch norms over the images of all processes.
        mixed_precision: bfloat16 in the network's passes, on GPUs that have it.
        ema_decay: limit of the weights' moving average.
        ema_warmup: iterations over which the average approaches its limit.
        validate_every: iterations between validations on the first `validation_images` of the validation split.
        checkpoint_every: iterations between checkpoints.
        workers: processes that render images.
        seed: of the weights and of the data.
        data: the aisle scenes to train on.
        coco: images with boxes to train on instead.
    """

    model: str
    fine: bool = True
    fine_settings: FineSettings = field(default_factory=FineSettings)
    any_depth: bool = True
    passes: tuple[str, ...] = ("super", "base")
    base_from: int = 0
    switch_norms: bool = True
    dedicated_aggregators: bool = True
    distillation: DistillationSettings | None = None
    initial_weights: str | None = None
    image_size: tuple[int, int] = (320, 320)
    resize: str = "letterbox"
    small_image_size: tuple[int, int] = (320, 320)
    small_iterations: int = 0
    iterations: int = 3000
    batch_size: int = 16
    accumulate: int = 1
    sync_norms: bool = False
    mixed_precision: bool = False
    ema_decay: float = 0.998
    ema_warmup: int = 300
    validate_every: int = 500
    validation_images: int = 100
    checkpoint_every: int = 250
    workers: int = 1
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    coco: CocoSettings | None = None
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    def __post_init__(self) -> None:
        for name in ("image_size", "small_image_size"):
            height, width = getattr(self, name)
            if height % 32 or width % 32 or min(height, width) < 32:
                raise RecipeError(f"{name} {(height, width)} must be positive multiples of 32")
        if self.passes not in (("super", "base"), ("super",), ("base",)):
            raise RecipeError(f"passes is {list(self.passes)}; it must be [super, base], [super] or [base]")
        if self.passes == ("base",) and not self.any_depth:
            raise RecipeError("passes is [base], but any_depth is false: such a network has no base-net")
        if self.distillation is not None and self.trained_passes != ("super", "base"):
            raise RecipeError(
                f"distillation needs both passes, but the recipe runs {', '.join(self.trained_passes)} alone; "
                "set distillation to null"
            )
        if self.base_from and self.trained_passes != ("super", "base"):
            raise RecipeError(f"base_from is {self.base_from}, but the recipe does not run both passes")
        if self.base_from and not 0 < self.base_from < self.iterations:
            raise RecipeError(f"base_from is {self.base_from}; it must be within the {self.iterations} iterations")
        if self.resize not in ("letterbox", "stretch"):
            raise RecipeError(f"resize is {self.resize!r}; it must be letterbox or stretch")
        if len(self.data.frame_sizes) != len(self.data.frame_weights):
            raise RecipeError("data.frame_sizes and data.frame_weights must be of equal length")
        sides = self.coco.detr.sides if self.coco is not None and self.coco.detr is not None else ()
        if sides and self.image_size[0] != self.image_size[1]:
            raise RecipeError(f"coco.detr.sides need a square image_size, not {self.image_size}; or give sides: []")
        for name in ("iterations", "batch_size", "accumulate", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def trained_passes(self) -> tuple[str, ...]:
        """The passes of a step: a network without any depth has only the super-net's."""
        return self.passes if self.any_depth else ("super",)

    def passes_at(self, iteration: int) -> tuple[str, ...]:
        """The passes of one iteration's step."""
        return self.trained_passes[:1] if iteration < self.base_from else self.trained_passes

    @property
    def any_depth_settings(self) -> AnyDepthSettings:
        """Which parts of the any-depth design the network has."""
        return AnyDepthSettings(self.any_depth, self.switch_norms, self.dedicated_aggregators)

    def build_model(self, num_classes: int) -> AnyDepthDetector:
        """The detector that this recipe trains, with random weights."""
        fine = self.fine_settings if self.fine else None
        return build_model(self.model, num_classes, fine=fine, any_depth=self.any_depth_settings)

    def image_size_at(self, iteration: int) -> tuple[int, int]:
        """(height, width) of the images of one iteration."""
        return self.small_image_size if iteration < self.small_iterations else self.image_size


def find_yaml(kind: str, name_or_path: str, folder: Path) -> Path:
    """The YAML file at a path, or of a name in `folder`; `kind` is what it is called in errors.

    Raises:
        RecipeError: there is neither.
    """
    for path in (Path(name_or_path), folder / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
    raise RecipeError(f"no {kind} {name_or_path!r}: neither a file nor one of {known}")


def load_recipe(name_or_path: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe of `training/recipes` by name, or a YAML file, and applies `key=value` overrides.

    Nested keys are dotted: `optimizer.learning_rate=0.001`.

    Raises:
        RecipeError: no such recipe, a key it does not know, a value of the wrong type.
    """
    path = find_yaml("recipe", name_or_path, RECIPES)
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {error}") from error
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise RecipeError(f"override {override!r} is not of the form key=value")
        *parents, leaf = key.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise RecipeError(f"override {override!r}: {parent} is {node!r}, which has no keys of its own")
        node[leaf] = yaml.safe_load(text)
    return from_dict(Recipe, values, str(path))


def from_dict(cls: type[Any], values: Any, where: str) -> Any:
    """Builds the frozen dataclass `cls` from plain values, checking every key and type."""
    if not isinstance(values, dict):
        raise RecipeError(f"{where}: expected a mapping, got {values!r}")
    kinds = typing.get_type_hints(cls)
    unknown = set(values) - set(kinds)
    if unknown:
        raise RecipeError(f"{where}: unknown key {sorted(unknown)[0]!r}; accepted are {', '.join(sorted(kinds))}")
    converted = {key: _convert(kinds[key], value, f"{where}: {key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}: {error}") from error


def _convert(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        assert isinstance(kind, type)
        return from_dict(kind, value, where)
    if isinstance(kind, types.UnionType):
        (kind,) = (other for other in typing.get_args(kind) if other is not type(None))
        return None if value is None else _convert(kind, value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            raise RecipeError(f"{where} must be a list, got {value!r}")
        kinds = typing.get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        if len(kinds) != len(value):
            raise RecipeError(f"{where} must have {len(kinds)} entries, got {value!r}")
        return tuple(_convert(k, v, where) for k, v in zip(kinds, value, strict=True))
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise RecipeError(f"{where} must be of type {kind.__name__}, got {value!r}")
    return value
