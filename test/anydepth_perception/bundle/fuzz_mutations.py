"""Ways to damage a manifest, a segment or a cache entry, chosen by a random generator; a helper of the tests."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

OUTSIDE = (
    "../outside/stem.onnx", "segments/../../outside/stem.onnx", "{folder}/outside/stem.onnx", "..", "/etc/passwd",
)  # fmt: skip

NASTY: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 63, 65, 2**31, 2**63, 10**400, -(10**30), 0.5, 1e308, float("nan"), float("inf"),
    "", "\0", "x", "x" * 100_000, "\ud800", "\u202e", "../../outside", "[]", [], {}, [[]], [0], [-1], [2**40],
    [2**16, 2**16, 2**16], [1, 3, 16384, 16384], [1.5], ["a", "a"], {"a": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Mutation:
    """The damaged bytes, what was done in words, and whether serving it would be wrong in any case."""

    data: bytes
    what: str
    must_refuse: bool = False


def mutate_bytes(data: bytes, picks: random.Random, other: bytes | None = None) -> Mutation:
    """Flips, cuts, swaps, repeats or blanks bytes; `other` takes the place of all, where it is given."""
    ways = ["flip", "flip", "truncate", "append", "swap", "blank", "repeat", "delete"]
    way = picks.choice(ways if other is None else [*ways, "other"])
    if way == "flip":
        changed = bytearray(data)
        count = picks.choice([1, 1, 2, 8, 64])
        for _ in range(count):
            changed[picks.randrange(len(data))] ^= 1 << picks.randrange(8)
        return Mutation(bytes(changed), f"{count} bits flipped")
    if way == "truncate":
        size = picks.choice([0, 1, picks.randrange(len(data)), len(data) - 1])
        return Mutation(data[:size], f"truncated to {size} bytes")
    if way == "append":
        return Mutation(data + picks.randbytes(picks.choice([1, 1000])), "bytes appended")
    if way == "other":
        return Mutation(other or b"", "swapped for another one")
    a, b, c = sorted(picks.randrange(len(data) + 1) for _ in range(3))
    blank = picks.choice([b"\0", b"\xff", b" ", b"9"]) * (b - a)
    changes = {
        "swap": data[:a] + data[b:c] + data[a:b] + data[c:],
        "blank": data[:a] + blank + data[b:],
        "repeat": data[:b] + data[a:],
        "delete": data[:a] + data[b:],
    }
    return Mutation(changes[way], f"{way} of bytes {a} to {b}")


def mutate_manifest(data: bytes, picks: random.Random) -> Mutation:
    """Changes the JSON document: values of wrong type, size or meaning, keys gone or swapped, paths that lead out."""
    document = json.loads(data)
    places = list(_places(document))
    ways = ["value", "value", "value", "remove", "swap", "swap", "rename", "outside", "shape", "deep", "add"]
    way = picks.choice(ways)
    holder, key = picks.choice(places)
    if way == "value":
        value = picks.choice(NASTY)
        what = f"{key!r} is {str(value)[:40]!r}"
        holder[key] = value
    elif way == "remove":
        what = f"{key!r} removed"
        del holder[key]
    elif way == "swap":
        other, other_key = picks.choice(places)
        what = f"{key!r} and {other_key!r} swapped"
        holder[key], other[other_key] = other[other_key], holder[key]
        if _is_cyclic(document):
            return mutate_manifest(data, picks)
    elif way == "rename":
        holder, key = picks.choice([(place, name) for place, name in places if isinstance(place, dict)])
        name = picks.choice([*OUTSIDE, "", "x", "\0", "p2.full", "stem"])
        what = f"key {key!r} renamed to {name!r}"
        holder[name] = holder.pop(key)
    elif way == "outside":
        # The file outside is good and has the sum that the manifest says: only the path is wrong.
        path = picks.choice(OUTSIDE[:3]).format(folder=Path.cwd().parent)
        document["segments"]["stem"]["file"] = path
        return Mutation(json.dumps(document).encode(), f"stem is read from {path}", must_refuse=True)
    elif way == "shape":
        segment = picks.choice(list(document["segments"].values()))
        tensor = picks.choice(list({**segment["inputs"], **segment["outputs"]}.values()))
        tensor["shape"] = picks.choice([[2**28], [2**28, 1], [1] * 1000, [1, 8, 2**13, 2**12], [2**62, 2**62], [0]])
        what = f"a tensor of {segment['file']} has shape {str(tensor['shape'])[:40]}"
    elif way == "deep":
        what = f"{key!r} is nested deeply"
        holder[key] = "DEEP"
        depth = picks.choice([100, 900, 100_000])
        nested = b"[" * depth + b"]" * depth
        return Mutation(json.dumps(document).encode().replace(b'"DEEP"', nested), what)
    else:
        what = "an unknown key added"
        document["segments"]["unknown"] = picks.choice(list(document["segments"].values()))
        document["unknown"] = picks.choice(NASTY)
    return Mutation(json.dumps(document).encode(), what)


def mutate_model(data: bytes, picks: random.Random) -> Mutation:
    """Changes the ONNX graph: operators, names, shapes, types, weights, attributes, opsets, weights kept elsewhere."""
    model = onnx.load_model_from_string(data)
    ways: list[Callable[[onnx.ModelProto, random.Random], str]] = [
        _change_operator, _change_name, _change_weight_shape, _change_weight_values, _change_attribute, _change_opset,
        _remove_node, _repeat_node, _put_weight_outside, _change_boundary, _make_cycle, _claim_a_huge_tensor,
    ]  # fmt: skip
    way = picks.choice(ways)
    what = way(model, picks)
    return Mutation(model.SerializeToString(), what, must_refuse=way in (_put_weight_outside, _make_cycle))


def mutate_entry(entry: Path, other: Path, outside: Path, picks: random.Random) -> Mutation:
    """Damages a cache entry in place, or puts something else where it was."""
    data = entry.read_bytes()
    way = picks.choice(["bytes"] * 4 + ["other", "header", "link", "folder", "pipe", "gone", "mode"])
    mutation = Mutation(b"", way)
    if way == "bytes":
        mutation = mutate_bytes(data, picks)
        entry.write_bytes(mutation.data)
    elif way == "other":
        entry.write_bytes(other.read_bytes())
    elif way == "header":
        magic, line, engine = data.split(b"\n", 2)
        header = json.loads(line)
        key = picks.choice(sorted(header))
        header[key] = picks.choice([value for value in NASTY if value != "\ud800"])
        entry.write_bytes(b"\n".join([magic, json.dumps(header).encode(), engine]))
        mutation = Mutation(b"", f"{key} of the header is {str(header[key])[:40]}")
    elif way == "mode":
        entry.chmod(0)
    else:
        entry.unlink()
        if way == "link":
            entry.symlink_to(outside / "stem.onnx")
        elif way == "folder":
            entry.mkdir()
        elif way == "pipe":
            os.mkfifo(entry)
    return mutation


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or list, key or index) in the document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in list(items):
        yield document, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _is_cyclic(document: Any) -> bool:
    try:
        json.dumps(document)
    except (ValueError, RecursionError):
        return True
    return False


def _change_operator(model: onnx.ModelProto, picks: random.Random) -> str:
    node = picks.choice(model.graph.node)
    before, node.op_type = node.op_type, picks.choice(
        ["Conv", "Relu", "Add", "Mul", "If", "Loop", "Reshape", "Softmax", "NoSuchOperator", "", "Identity", "Sigmoid"]
    )
    if picks.random() < 0.2:
        node.domain = picks.choice(["com.microsoft", "ai.onnx.ml", "nowhere"])
    return f"operator {before} is {node.domain} {node.op_type}"


def _change_name(model: onnx.ModelProto, picks: random.Random) -> str:
    node = picks.choice(model.graph.node)
    names = picks.choice([node.input, node.output])
    if not names:
        return "nothing"
    index = picks.randrange(len(names))
    before, names[index] = names[index], picks.choice(["", "missing", "../../outside", "x" * 10_000, *node.output])
    return f"tensor {before} is called {names[index][:40]!r}"


def _weight(model: onnx.ModelProto, picks: random.Random) -> onnx.TensorProto:
    if not model.graph.initializer:
        model.graph.initializer.append(helper.make_tensor("extra", TensorProto.FLOAT, [1], [0.0]))
    return picks.choice(model.graph.initializer)


def _change_weight_shape(model: onnx.ModelProto, picks: random.Random) -> str:
    weight = _weight(model, picks)
    shape = picks.choice([[2**62], [2**31, 2**31], [-1], [0], [1], [2**40, 2**40], [], [1] * 100, [2**20, 8, 3, 3]])
    del weight.dims[:]
    weight.dims.extend(shape)
    return f"weight {weight.name} has shape {str(shape)[:40]}"


def _change_weight_values(model: onnx.ModelProto, picks: random.Random) -> str:
    weight = _weight(model, picks)
    way = picks.choice(["nan", "inf", "scaled", "slightly", "short", "type"])
    values = np.frombuffer(weight.raw_data, np.uint8).copy()
    if way == "short":
        weight.raw_data = weight.raw_data[:-1]
    elif way == "type":
        weight.data_type = picks.choice([0, 2, 7, 8, 10, 11, 16, 99, -1])
    elif weight.data_type == TensorProto.FLOAT and len(values):
        floats = values.view(np.float32)
        floats *= {"nan": np.nan, "inf": np.inf, "scaled": 3.0, "slightly": 1.0 + 1e-7}[way]
        weight.raw_data = floats.tobytes()
    return f"weight {weight.name}: {way}"


def _change_attribute(model: onnx.ModelProto, picks: random.Random) -> str:
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    if not attributes:
        return "nothing"
    attribute = picks.choice(attributes)
    huge = picks.choice([0, -1, 2**31, 2**62, -(2**62), 1000])
    if attribute.ints:
        attribute.ints[picks.randrange(len(attribute.ints))] = huge
    else:
        attribute.i = huge
    if picks.random() < 0.2:
        attribute.type = picks.choice([1, 2, 3, 4, 5, 6, 7])
    return f"attribute {attribute.name} has {huge}"


def _change_opset(model: onnx.ModelProto, picks: random.Random) -> str:
    version = picks.choice([0, 1, 6, 13, 18, 26, 1000, 2**62, -1])
    if picks.random() < 0.3:
        model.ir_version = version
        return f"IR version {version}"
    model.opset_import[0].version = version
    return f"opset {version}"


def _remove_node(model: onnx.ModelProto, picks: random.Random) -> str:
    index = picks.randrange(len(model.graph.node))
    what = f"node {model.graph.node[index].name} removed"
    del model.graph.node[index]
    return what


def _repeat_node(model: onnx.ModelProto, picks: random.Random) -> str:
    node = picks.choice(model.graph.node)
    model.graph.node.append(node)
    return f"node {node.name} repeated"


def _put_weight_outside(model: onnx.ModelProto, picks: random.Random) -> str:
    weight = _weight(model, picks)
    location = picks.choice([*OUTSIDE, "weights.bin"]).format(folder=Path.cwd().parent)
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    weight.external_data.add(key="location", value=location)
    weight.external_data.add(key="offset", value=str(picks.choice([0, -1, 2**62])))
    return f"weight {weight.name} lies in {location}"


def _change_boundary(model: onnx.ModelProto, picks: random.Random) -> str:
    value = picks.choice([*model.graph.input, *model.graph.output])
    tensor = value.type.tensor_type
    way = picks.choice(["name", "size", "free", "type", "rank", "none"])
    if way == "name":
        value.name = picks.choice(["", "other", "images", "boxes"])
    elif way == "size":
        picks.choice(tensor.shape.dim).dim_value = picks.choice([0, -1, 2**31, 2**62])
    elif way == "free":
        picks.choice(tensor.shape.dim).dim_param = "N"
    elif way == "type":
        tensor.elem_type = picks.choice([0, 7, 8, 10, 11, 99])
    elif way == "rank":
        tensor.shape.dim.add(dim_value=1)
    else:
        value.ClearField("type")
    return f"boundary tensor: {way}"


def _make_cycle(model: onnx.ModelProto, picks: random.Random) -> str:
    node = picks.choice(model.graph.node)
    node.input[0] = node.output[0]
    return f"node {node.name} reads what it writes"


def _claim_a_huge_tensor(model: onnx.ModelProto, picks: random.Random) -> str:
    """A few bytes that ask for very much memory."""
    name = model.graph.node[0].name + "/huge"
    size = picks.choice([2**33, 2**40, 2**62])
    model.graph.initializer.append(helper.make_tensor(f"{name}_shape", TensorProto.INT64, [1], [size]))
    model.graph.node.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], name=f"{name}_node"))
    return f"a tensor of {size} elements that nothing reads"


