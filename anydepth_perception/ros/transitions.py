"""Transitions beside the node's other callbacks, so that services are answered while a configure takes its seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.lifecycle import LifecycleNode
from rclpy.service import Service

from anydepth_perception.ros.process import one_line


class TransitionExecutor(SingleThreadedExecutor):
    """One thread for all callbacks but those of one service, which has threads of its own."""

    def __init__(self, beside: Service | None) -> None:
        """`beside` gets a callback group of its own: its requests wait for each other and for nothing else."""
        super().__init__()
        self._beside = beside
        if beside is not None:
            beside.callback_group = MutuallyExclusiveCallbackGroup()
            beside.callback_group.add_entity(beside)

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Runs one callback that is ready, or hands it to a thread, and raises what it raised."""
        entity: object
        try:
            handler, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (TimeoutException, ShutdownException):
            return
        if entity is not None and entity is self._beside:
            run_in_thread("transition", handler)
            return
        handler()
        error = handler.exception()
        if error is not None:
            raise error


def run_in_thread(name: str, work: Callable[[], object]) -> None:
    """Runs `work` in a daemon: a process that has to end does not wait for it."""
    threading.Thread(target=work, name=name, daemon=True).start()


def take_turns(node: LifecycleNode, turn: threading.Lock, state: Callable[[], str]) -> None:
    """Makes the transitions that are asked of `node` wait for `turn`, and refuses those that are impossible.

    In rclpy itself a transition that the state does not allow ends the executor. `state` names it.
    """
    service = getattr(node, "_service_change_state", None)
    if service is None:
        return
    change_state = service.callback

    def guarded(request: ChangeState.Request, response: ChangeState.Response) -> ChangeState.Response:
        try:
            with turn:
                return change_state(request, response)
        except Exception as error:
            wanted = request.transition.label or request.transition.id
            node.get_logger().error(f"transition {wanted} is not possible while {state()}: {one_line(error)}")
            response.success = False
            return response

    service.callback = guarded
