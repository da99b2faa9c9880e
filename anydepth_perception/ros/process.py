"""How the executables start and end: one line for a start that fails, and a prompt, quiet end on SIGINT and SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeVar

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args

from anydepth_perception.ros.qos import use_image_profile
from anydepth_perception.ros.shared_memory import remove_leftovers

FORCED_END_S = 1.5
"""Seconds from the signal after which a process that still has not ended is ended by force."""

_POLL_S = 0.2


class StopRequest:
    """Whether SIGINT or SIGTERM has come; a context manager that holds the handlers.

    Python runs signal handlers in the main thread only between two bytecodes, so a call into native code that hangs
    holds them up. The wake-up descriptor is written by the signal itself, and a thread that reads it ends the
    process with exit code 0 when the orderly way takes longer than `FORCED_END_S`.
    """

    def __init__(self) -> None:
        self._requested = threading.Event()
        self._ended = threading.Event()
        self._receiver, self._sender = socket.socketpair()
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    @property
    def requested(self) -> bool:
        """Whether the process has been asked to end."""
        return self._requested.is_set()

    def __enter__(self) -> StopRequest:
        self._sender.setblocking(False)
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        threading.Thread(target=self._end_by_force, name="stop-request", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._sender.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._requested.set()

    def _end_by_force(self) -> None:
        if self._receiver.recv(1) and not self._ended.wait(FORCED_END_S):
            leave_now(0)


def leave_now(code: int) -> None:
    """Ends the process without waiting for threads that are stuck in native code."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class ProcessNode(Node):
    """A node that a process of its own runs; `finished` ends the process, with `exit_code`."""

    finished: bool = False
    exit_code: int = 0

    def make_executor(self) -> SingleThreadedExecutor:
        """What serves the node's callbacks."""
        return SingleThreadedExecutor()

    def close(self) -> bool:
        """Ends what the node does beside its callbacks; False when a thread did not end in time."""
        raise NotImplementedError


RunNode = TypeVar("RunNode", bound=ProcessNode)


def run_node(
    create: Callable[[StopRequest], RunNode],
    args: list[str] | None,
    before_spin: Callable[[RunNode], None] | None = None,
) -> int:
    """Runs one node until SIGINT, SIGTERM or the end of its context; the process's exit code.

    Args:
        create: makes the node.
        args: command line without the program, None for that of the process.
        before_spin: called with the node before its callbacks are served.
    """
    use_image_profile()
    remove_leftovers()
    with StopRequest() as stop:
        try:
            rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
        except Exception as error:  # rclpy raises several kinds for arguments and files it cannot read
            print(f"error: {one_line(error)}", file=sys.stderr)
            return 1
        try:
            try:
                node = create(stop)
            except StartError as error:
                print(f"error: {one_line(error)}", file=sys.stderr)
                return 1
            except Exception as error:  # a name, namespace or domain that ROS refuses
                print(f"error: the node cannot be created: {type(error).__name__}: {one_line(error)}", file=sys.stderr)
                get_logger("anydepth_perception").debug(traceback.format_exc())
                return 1
            executor = node.make_executor()
            executor.add_node(node)
            if before_spin is not None:
                before_spin(node)
            _spin(executor, node, stop)
            all_ended = node.close()
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
        finally:
            rclpy.try_shutdown()
        if not all_ended:
            leave_now(0)
    return node.exit_code


def own_arguments(args: list[str] | None) -> list[str]:
    """The command line without the program and what is ROS's.

    Raises:
        SystemExit: ROS's arguments cannot be read; the reason is printed.
    """
    given = sys.argv[1:] if args is None else args
    try:
        return list(remove_ros_args([sys.argv[0], *given])[1:])
    except Exception as error:  # of several kinds
        print(f"error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None


class StartError(Exception):
    """Why a node cannot start, in words for the user."""


def one_line(error: BaseException) -> str:
    """The text of an error in one line; its kind where it has no text."""
    return " ".join(str(error).split()) or type(error).__name__


def _spin(executor: SingleThreadedExecutor, node: ProcessNode, stop: StopRequest) -> None:
    while not stop.requested and rclpy.ok() and not node.finished:
        try:
            executor.spin_once(timeout_sec=_POLL_S)
        except ExternalShutdownException:
            return
        except Exception as error:
            # A fault in one callback must not take the node down.
            node.get_logger().error(f"a callback failed: {one_line(error)}")
            node.get_logger().debug(traceback.format_exc())


class RosLogHandler(logging.Handler):
    """Hands the records of plain Python modules to the log of a node."""

    def __init__(self, logger: RcutilsLogger) -> None:
        super().__init__(logging.DEBUG)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record at the level it has."""
        text = self.format(record)
        # rclpy ties a level to the line that logs, so that each level needs a line of its own.
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
