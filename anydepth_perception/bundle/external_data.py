"""Finds tensors of an ONNX model whose values lie in another file: a path that somebody else may have chosen."""

from __future__ import annotations

import onnx
from google.protobuf.message import Message


def external_tensor(model: onnx.ModelProto) -> onnx.TensorProto | None:
    """The first tensor with external data, wherever in the model it stands; None where there is none.

    All messages are looked at, by what they hold and not by their place: initialisers, dense and sparse ones,
    attributes of nodes, branches and bodies in any depth, functions, training information.
    """
    waiting: list[Message] = [model]
    while waiting:
        message = waiting.pop()
        if isinstance(message, onnx.TensorProto):
            if message.external_data or message.data_location == onnx.TensorProto.EXTERNAL:
                return message
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)
    return None
