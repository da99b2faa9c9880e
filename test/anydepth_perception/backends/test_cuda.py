"""Calls of the CUDA driver arrive with their C types: handles and addresses of 64 bits, sizes, out-parameters."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest

from anydepth_perception.backends import BackendError, Placement
from anydepth_perception.backends.cuda import Cuda
from anydepth_perception.backends.cuda_memory import CudaDevice
from anydepth_perception.bundle.manifest import TensorSpec


@pytest.fixture(scope="module")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Cuda:
    library = tmp_path_factory.mktemp("driver") / "libcuda.so.1"
    source = Path(__file__).with_name("stub_driver.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return Cuda(ctypes.CDLL(str(library)))


def test_facts_of_the_device_are_read(cuda: Cuda) -> None:
    assert (cuda.device_name, cuda.compute_capability, cuda.driver_version) == ("Stub", "SM87", "12.4")


def test_a_tensor_goes_to_the_device_and_comes_back(cuda: Cuda) -> None:
    device = CudaDevice(cuda)
    buffer = device.allocate([Placement(TensorSpec("a", (4, 4), "float32"), 256)])["a"]
    buffer.host[:] = np.arange(16).reshape(4, 4)
    buffer.upload()
    buffer.host[:] = 0
    buffer.download()
    device.synchronize()
    np.testing.assert_array_equal(buffer.host, np.arange(16).reshape(4, 4))


def test_memory_on_the_device_is_zeroed(cuda: Cuda) -> None:
    device = CudaDevice(cuda)
    buffer = device.allocate([Placement(TensorSpec("a", (512,), "uint8"))])["a"]
    buffer.host[:] = 1
    buffer.download()
    device.synchronize()
    assert not buffer.host.any()


def test_graphs_and_events_are_handed_over(cuda: Cuda) -> None:
    cuda.activate()
    stream = cuda.create_stream()
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    start, end = cuda.create_event(), cuda.create_event()
    cuda.record(start, stream)
    cuda.launch(graph, stream)
    cuda.record(end, stream)
    cuda.synchronize(stream)
    assert cuda.elapsed_ms(start, end) == 1.5


def test_failures_carry_the_drivers_words(cuda: Cuda) -> None:
    with pytest.raises(BackendError, match=r"^cuStreamSynchronize failed: CUDA_ERROR_STUB, not as expected$"):
        cuda.synchronize(1)


def test_sizes_beyond_32_bits_arrive(cuda: Cuda) -> None:
    with pytest.raises(BackendError, match=r"cuMemAlloc failed: .*; 1048576 of 2097152 MiB are free"):
        cuda.allocate_device((1 << 40) + 1)
