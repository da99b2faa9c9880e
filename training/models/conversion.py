"""What a conversion gives: the state to load, and what became of every key on either side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Conversion:
    """A converted state and its report.

    Attributes:
        state: every tensor of our network, ready for a strict `load_state_dict`: converted where the source has it,
            as initialised for the keys of `missing`. No two share memory.
        matched: (source key, our key) of every tensor that was taken. A source key that fills several of ours
            stands once for each.
        missing: our keys that the source does not have.
        unexpected: source keys without a place in our network.
    """

    state: dict[str, Tensor]
    matched: tuple[tuple[str, str], ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def may_be_missing(key: str) -> bool:
    """Whether published checkpoints may lack our tensor `key`.

    FINE's, the batch counts, which frozen norms don't have, and the embedding for denoising, used in training alone.
    """
    return (
        ".fine." in key
        or ".high_projection." in key
        or ".denoising_embedding." in key
        or key.endswith(".num_batches_tracked")
    )


def fill(
    network: nn.Module, name: str, found: Mapping[str, tuple[str, Tensor]], source_keys: Iterable[str]
) -> Conversion:
    """Puts tensors that were found for our keys into the state of a network.

    Args:
        network: ours; not changed.
        name: of the network, for errors.
        found: per key of ours, the source's key and its tensor, cut to what ours should hold; any floating type.
        source_keys: every key of the source.

    Raises:
        ValueError: a tensor of another shape than ours, or a key that the source lacks and `may_be_missing` does
            not excuse.
    """
    state: dict[str, Tensor] = {}
    for key, ours in network.state_dict().items():
        source_key, tensor = found.get(key, (key, ours))
        if tensor.shape != ours.shape:
            raise ValueError(
                f"{source_key} of the checkpoint has shape {list(tensor.shape)}, "
                f"but {key} of {name} needs {list(ours.shape)}"
            )
        state[key] = tensor.detach().to(ours.dtype, copy=True).contiguous()
    missing = tuple(key for key in state if key not in found)
    lacking = [key for key in missing if not may_be_missing(key)]
    if lacking:
        raise ValueError(
            f"the checkpoint lacks {len(lacking)} of the {len(state)} tensors of {name}, the first for {lacking[0]}"
        )
    used = {source_key for source_key, _ in found.values()}
    return Conversion(
        state,
        matched=tuple((found[key][0], key) for key in state if key in found),
        missing=missing,
        unexpected=tuple(key for key in source_keys if key not in used),
    )
