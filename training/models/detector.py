"""What both detector families have in common: eight stages by name, depth configurations, and what they refuse."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from anydepth_perception.depth.config import STAGES, DepthConfig, DepthConfigError, base_exit

MIN_SIDE = 32
"""Pixels: the stride of P5; an image below it has no cell there."""


class AnyDepthDetector(nn.Module):
    """A detector of eight stages, each with an essential and a full path, and decoder exits where it has a decoder.

    A subclass builds `stages`, a `nn.ModuleDict` over `STAGES`; each stage has a property `skippable` (whether its
    full path has any block that the essential path leaves out) and takes the feature maps that `stage_inputs`
    names, in that order, and `path`.

    Args:
        name: of the model, as `yolo-l`; named in errors.
        num_classes: classes of the head.
        num_exits: decoder layers that can be read, 0 without a decoder.
        any_depth: False for the plain baseline, whose stages have only their full path.
    """

    stage_inputs: Mapping[str, tuple[str, ...]]
    """Which feature maps each stage reads, in the order of its arguments."""

    stages: nn.ModuleDict

    def __init__(self, name: str, num_classes: int, *, num_exits: int, any_depth: bool) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"{name}: {num_classes} classes; a detector has at least 1")
        self.name = name
        self.num_classes = num_classes
        self.num_exits = num_exits
        self.any_depth = any_depth

    @property
    def skippable_stages(self) -> tuple[str, ...]:
        """The stages that have an essential path shorter than their full one."""
        return tuple(name for name in STAGES if self.any_depth and self.stages[name].skippable)

    def full_config(self) -> DepthConfig:
        """The super-net: every stage on its full path, the last exit."""
        return DepthConfig.full(self.num_exits)

    def base_config(self) -> DepthConfig:
        """The base-net: every stage that can skip on its essential path, exit ceil(2L/3)."""
        if not self.any_depth:
            return self.full_config()
        skippable = self.skippable_stages
        return DepthConfig(tuple(name not in skippable for name in STAGES), base_exit(self.num_exits))

    def executed_config(self, config: DepthConfig) -> DepthConfig:
        """What a bundle of this detector runs for `config`: the full path of stages that have no essential one."""
        skippable = self.skippable_stages
        paths = zip(STAGES, config.full_paths, strict=True)
        return DepthConfig(tuple(full or name not in skippable for name, full in paths), config.exit)

    def check_config(self, config: DepthConfig) -> None:
        """Refuses a configuration that this detector does not have.

        Raises:
            DepthConfigError: an exit of a detector without a decoder, a missing exit or one out of range, the
                essential path of a stage with nothing to skip, any essential path of a plain baseline.
        """
        if self.num_exits == 0 and config.exit is not None:
            raise DepthConfigError(f"{config}: {self.name} has no decoder exits; leave out .d{config.exit}")
        if self.num_exits and config.exit is None:
            raise DepthConfigError(f"{config}: {self.name} needs a decoder exit, .d1 to .d{self.num_exits}")
        if self.num_exits and not 1 <= (config.exit or 0) <= self.num_exits:
            raise DepthConfigError(
                f"{config}: exit d{config.exit} is out of range, {self.name} has d1 to d{self.num_exits}"
            )
        if not self.any_depth and not all(config.full_paths):
            raise DepthConfigError(
                f"{config}: {self.name} was built as a static network, whose stages have only their full path; "
                f"use {self.full_config()}"
            )
        skippable = self.skippable_stages
        for name, full in zip(STAGES, config.full_paths, strict=True):
            if not full and name not in skippable:
                raise DepthConfigError(
                    f"{config}: stage {name} of {self.name} has a single block and nothing to skip; "
                    f"stages with an essential path are {', '.join(skippable)}"
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
