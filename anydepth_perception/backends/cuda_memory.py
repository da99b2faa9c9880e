"""A GPU's stream and the tensors on it: one block on the device and its pinned mirror on the host per allocation."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Sequence

import numpy as np

from anydepth_perception.backends.base import Buffer, Placement, size_bytes
from anydepth_perception.backends.cuda import Cuda
from anydepth_perception.bundle.manifest import TensorSpec


class CudaDevice:
    """One stream, on which everything is queued in order.

    `lock` is held by whoever queues: threads take turns, so that engines may be loaded and warmed in one while
    another serves frames, and nothing gets into a graph that another thread is capturing.
    """

    def __init__(self, cuda: Cuda) -> None:
        """Creates the stream.

        Raises:
            BackendError: the driver refuses.
        """
        self.cuda = cuda
        self.lock = threading.RLock()
        cuda.activate()
        self.stream = cuda.create_stream()
        self.release_with(self, "cuStreamDestroy_v2", self.stream)

    def release_with(self, owner: object, function: str, handle: int) -> None:
        """Calls the driver's `function` on `handle` once `owner` is gone, except at the end of the process."""
        weakref.finalize(owner, self.cuda.release, function, handle).atexit = False

    def allocate(self, placements: Sequence[Placement]) -> dict[str, Buffer]:
        """See `Backend.allocate`."""
        size = max((placement.end for placement in placements), default=0)
        if size == 0:
            return {}
        with self.lock:
            self.cuda.activate()
            block = _Block(self, size)
        return {placement.spec.name: DeviceBuffer(self, block, placement) for placement in placements}

    def synchronize(self) -> None:
        """See `Backend.synchronize`."""
        with self.lock:
            self.cuda.activate()
            self.cuda.synchronize(self.stream)


class _Block:
    """Memory on the device, and as much on the host. The host's lives as long as an array of it does."""

    def __init__(self, device: CudaDevice, size: int) -> None:
        cuda = device.cuda
        self.address = cuda.allocate_device(size)
        device.release_with(self, "cuMemFree_v2", self.address)
        host = cuda.allocate_host(size)
        memory = (ctypes.c_uint8 * size).from_address(host)
        device.release_with(memory, "cuMemFreeHost", host)
        self.host = np.ctypeslib.as_array(memory)
        self.host[:] = 0
        cuda.zero(self.address, size, device.stream)


class DeviceBuffer:
    """A tensor on the device and its view on the host."""

    def __init__(self, device: CudaDevice, block: _Block, placement: Placement) -> None:
        """Use `CudaDevice.allocate`."""
        self._device = device
        self._block = block
        self.spec: TensorSpec = placement.spec
        self.address = block.address + placement.offset
        part = block.host[placement.offset : placement.end]
        self.host: np.ndarray = part.view(self.spec.dtype).reshape(self.spec.shape)
        self._host_address = part.ctypes.data
        self._size = size_bytes(self.spec)

    def upload(self) -> None:
        """Queues the copy from `host`, which has to stay as it is until the copy is done."""
        device = self._device
        with device.lock:
            device.cuda.activate()
            device.cuda.upload(self.address, self._host_address, self._size, device.stream)

    def download(self) -> None:
        """Queues the copy to `host`."""
        device = self._device
        with device.lock:
            device.cuda.activate()
            device.cuda.download(self._host_address, self.address, self._size, device.stream)
