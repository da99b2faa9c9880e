"""The depth configurations that a command is asked for, and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from anydepth_perception.bundle import Bundle
from anydepth_perception.depth.space import DepthConfig, DepthConfigError, DepthSpace
from training.evaluation.flops import count_parts, flops_at, meta_model
from training.models.detector import AnyDepthDetector
from training.recipes.weights import Weights


def depths_of_bundle(text: str, bundle: Bundle) -> dict[str, DepthConfig]:
    """Configurations of a bundle by the name asked for: `full,base,FFEE.FFEE`, `all` or `ladder`.

    Raises:
        DepthConfigError: one that cannot be read, or that the detector lacks.
    """
    return _parse(text, bundle.space, bundle.space.parse, bundle.default_configs)


def depths_of_model(text: str, model: AnyDepthDetector) -> dict[str, DepthConfig]:
    """Configurations of a network by the name asked for: `full,base,FFEE.FFEE` or `all`.

    Raises:
        DepthConfigError: one that cannot be read, that the detector lacks, or the ladder, which a bundle alone has.
    """

    def parse(name: str) -> DepthConfig:
        return model.space.base if name == "base" else model.parse_config(name)

    def no_ladder() -> Iterable[DepthConfig]:
        raise DepthConfigError("the ladder follows from a bundle's accuracy table; give --bundle")

    return _parse(text, model.space, parse, no_ladder)


def _parse(
    text: str, space: DepthSpace, parse: Callable[[str], DepthConfig], ladder: Callable[[], Iterable[DepthConfig]]
) -> dict[str, DepthConfig]:
    configs: dict[str, DepthConfig] = {}
    for name in text.split(","):
        if name in ("all", "ladder"):
            several = space.all() if name == "all" else ladder()
            configs |= {str(config): config for config in several}
        else:
            configs[name] = parse(name)
    return configs


def gflops_of(weights: Weights, configs: Sequence[DepthConfig]) -> dict[str, float]:
    """GFLOPs of one frame of a network in PyTorch, as executed, by configuration."""
    recipe = weights.recipe
    fine = recipe.fine_settings if recipe.fine else None
    counted = meta_model(recipe.model, len(weights.class_names), fine=fine, any_depth=recipe.any_depth_settings)
    parts = count_parts(counted, recipe.image_size)
    return {str(config): flops_at(parts, counted.space, config).total / 1e9 for config in configs}
