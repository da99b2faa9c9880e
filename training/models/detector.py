"""What all detector families have in common: stages by name, their depth space, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace, Step
from training.models.stage import AnyDepthSettings, shared_part, split_of
from training.models.targets import Targets

MIN_SIDE = 32
"""Pixels: the stride of P5; an image below it has no cell there."""


class AnyDepthDetector(nn.Module):
    """A detector of stages with an essential and a full path each, and of decoder exits where it has a decoder.

    Stages belong to the network: any number, any names. What runs is a sequence of entries. Those that put out one
    feature map stand in `map_inputs`: the stages, each in `stages`, and others, like the stem, each an attribute of
    the entry's name. What follows them, as a head, is the subclass's own.

    A subclass builds `stages` and its other modules and then calls `set_space`. A stage takes the feature maps that
    `map_inputs` names for it, in that order, and `path`; see `training.models.stage`.

    Attributes:
        name: of the model, as `yolo-l`; named in errors.
        num_classes: classes of the head.
        any_depth: which parts of the any-depth design it has.
        stages: by name, in execution order.
        map_inputs: per entry that puts out a feature map, in execution order, the maps that it reads; `images` are
            the images themselves, [B, 3, H, W] in [0, 1].
        backbone: the stages that are backbone; the others are neck.
        space: the entries of the network, which are those of its bundle, and the ways through them.
    """

    map_inputs: Mapping[str, tuple[str, ...]]
    backbone: tuple[str, ...]
    stages: nn.ModuleDict
    space: DepthSpace

    def __init__(self, name: str, num_classes: int, *, any_depth: AnyDepthSettings) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"{name}: {num_classes} classes; a detector has at least 1")
        self.name = name
        self.num_classes = num_classes
        self.any_depth = any_depth

    def set_space(self, following: Iterable[str], num_exits: int = 0) -> None:
        """Makes the depth space of the entries of `map_inputs` and of those `following` them.

        Args:
            following: names of the entries after the last feature map; `exits` stands for the decoder.
            num_exits: decoder layers that can be read, 0 without a decoder.
        """
        names: list[str] = []
        for name in self.map_inputs:
            part = shared_part(self.stages[name]) if name in self.stages else None
            names += [name] if part is None else [f"{name}.{part}", name]
        skippable = [
            name for name, stage in self.stages.items() if self.any_depth.enabled and split_of(stage).skippable
        ]
        space = DepthSpace.of([*names, *following], self.stages.keys(), skippable, num_exits)
        # The plain baseline has one configuration, whose exit is the last.
        self.space = space if self.any_depth.enabled else DepthSpace(space.entries, num_exits or None)

    @property
    def num_exits(self) -> int:
        """Decoder layers that can be read, 0 without a decoder."""
        return self.space.num_exits

    def forward(
        self, images: Tensor, config: DepthConfig | None = None, targets: Targets | None = None
    ) -> dict[str, Any]:
        """Detects in images [B, 3, H, W], RGB in [0, 1]; the contract of all families.

        `config` is the super-net if not given. `targets` are for what a family derives from the labels while training
        (DETR's denoising queries); others do without.

        Returns:
            `boxes` [B, N, 4], xyxy in network pixels, and `logits` [B, N, C]; while training also what the family's
            losses need, and `features`, as `stage_features` gives them.
        """
        raise NotImplementedError

    def features(self, images: Tensor, config: DepthConfig) -> dict[str, Tensor]:
        """The output of every entry that puts out a feature map, by name, for images [B, 3, H, W] in [0, 1]."""
        return self.features_of(images, self.space.route(config))

    def features_of(self, images: Tensor, steps: Iterable[Step]) -> dict[str, Tensor]:
        """The same for steps in execution order, be they of no configuration of this network."""
        maps = {"images": images}
        for step in steps:
            if step.entry in self.map_inputs:
                maps[step.entry] = self.run(step, [maps[source] for source in self.map_inputs[step.entry]])
        del maps["images"]
        return maps

    def stage_features(self, maps: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
        """The outputs of the stages alone, by name: of the `backbone` and of the `neck`."""
        return {
            "backbone": {name: maps[name] for name in self.stages if name in self.backbone},
            "neck": {name: maps[name] for name in self.stages if name not in self.backbone},
        }

    def run(self, step: Step, inputs: Iterable[Tensor]) -> Tensor:
        """The feature map that one step puts out; `inputs` as `map_inputs` names them."""
        if step.entry in self.stages:
            return self.stages[step.entry](*inputs, path=step.way)
        return self.get_submodule(step.entry)(*inputs)

    def parse_config(self, text: str) -> DepthConfig:
        """Reads `full`, `base` or the text form of a configuration; the exit may be left out, the last is meant then.

        Raises:
            DepthConfigError: the text is malformed, or `check_config` refuses what it says.
        """
        if text == "full":
            return self.space.full
        if text == "base" and self.any_depth.enabled:
            return self.space.base
        space = self.space
        config = space.with_full((), space.base_exit) if text == "base" else DepthConfig.parse(text)
        if config.exit is None and space.num_exits:
            config = DepthConfig(config.full_paths, space.num_exits)
        self.check_config(config)
        return config

    def check_config(self, config: DepthConfig) -> None:
        """Refuses a configuration that this detector does not have.

        Stricter than the space of its bundle, which runs the full path of a stage with nothing to skip, whatever the
        letter says: who trains or counts a path that is not there has made a mistake.

        Raises:
            DepthConfigError: another number of stages, an exit of a detector without a decoder, a missing exit or one
                out of range, the essential path of a stage with nothing to skip, any essential path of a plain
                baseline.
        """
        if self.num_exits == 0 and config.exit is not None:
            raise DepthConfigError(f"{config}: {self.name} has no decoder exits; leave out .d{config.exit}")
        if self.num_exits and config.exit is None:
            raise DepthConfigError(f"{config}: {self.name} needs a decoder exit, .d1 to .d{self.num_exits}")
        if self.num_exits and not 1 <= (config.exit or 0) <= self.num_exits:
            raise DepthConfigError(
                f"{config}: exit d{config.exit} is out of range, {self.name} has d1 to d{self.num_exits}"
            )
        self.space.check(config)
        if not self.any_depth.enabled and not all(config.full_paths):
            raise DepthConfigError(
                f"{config}: {self.name} was built as a static network, whose stages have only their full path; "
                f"use {self.space.full}"
            )
        for name, full in zip(self.space.stages, config.full_paths, strict=True):
            if not full and name not in self.space.skippable:
                raise DepthConfigError(
                    f"{config}: stage {name} of {self.name} has a single block and nothing to skip; "
                    f"stages with an essential path are {', '.join(self.space.skippable)}"
                )

    def check_images(self, images: Tensor) -> None:
        """Refuses images [B, 3, H, W] of another layout, or smaller than one cell of the coarsest level.

        Raises:
            ValueError: not four dimensions with three channels, or a side below 32 pixels.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images of shape {list(images.shape)}; expected [B, 3, H, W]")
        height, width = images.shape[2:]
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"image size {height}x{width} (height x width) is below one stride; each side needs {MIN_SIDE} or more"
            )
