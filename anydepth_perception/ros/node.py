"""The ROS 2 node `detector`: images in, vision_msgs detections out, at the depth that meets the deadline."""

from __future__ import annotations

import gc
import logging
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from sensor_msgs.msg import CompressedImage, Image

from anydepth_perception.backends.host_memory import return_free_memory
from anydepth_perception.profile.events import CapChange, OverCurrent
from anydepth_perception.profile.load import process_memory_bytes
from anydepth_perception.profile.recorded_times import RecordedTimes, check_writable
from anydepth_perception.ros import qos
from anydepth_perception.ros.camera import Camera, check_distinct, output_prefixes
from anydepth_perception.ros.declaration import declare, keep_types, unknown_overrides
from anydepth_perception.ros.diagnostics import (
    Health,
    deadline_health,
    detector_values,
    diagnostic_array,
    frame_values,
    free_depth_ms,
    status,
    worst,
)
from anydepth_perception.ros.process import ProcessNode, RosLogHandler, StopRequest, one_line
from anydepth_perception.ros.shared_memory import shared_memory_problem
from anydepth_perception.ros.system import SystemWatch, system_values
from anydepth_perception.ros.transitions import TransitionExecutor, run_in_thread, take_turns
from anydepth_perception.serving.model import Model, load_model, load_next_model
from anydepth_perception.serving.server import FrameServer
from anydepth_perception.serving.settings import TABLE, ParameterError
from anydepth_perception.serving.statistics import summarise
from anydepth_perception.serving.worker import Worker, steady_s

_DIAGNOSTICS_PERIOD_S = 1.0
_STOP_TIMEOUT_S = 2.0
_END_TIMEOUT_S = 0.5
_CONFIGURE_POLL_S = 0.1


class DetectorNode(LifecycleNode, ProcessNode):
    """Lifecycle node with one detector, one worker thread and any number of cameras.

    Callbacks of the executor only check and enqueue. The worker thread builds the engines at configure and serves
    the frames while active. Transitions have a thread of their own, one at a time (`_turn`), in which a configure waits
    for the worker; what they and the callbacks share changes under `_lock`. Every transition reports its failure and
    leaves the node alive.
    """

    def __init__(self, stop: StopRequest | None = None) -> None:
        super().__init__("detector")
        self._stop = stop
        self._turn = threading.Lock()
        self._lock = threading.RLock()
        self._state = "unconfigured"
        self._progress = ""
        self._problem = ""
        self._loaded: Model | None = None
        self._server: FrameServer | None = None
        self._times: RecordedTimes | None = None
        self._worker: Worker[Image | CompressedImage] | None = None
        self._left_behind = False
        self._cameras: list[Camera] = []
        self._frames: Publisher | None = None
        self._system = SystemWatch()
        self._memory_problem = shared_memory_problem()
        self._log_handler = RosLogHandler(self.get_logger())
        logging.getLogger("anydepth_perception").addHandler(self._log_handler)
        self._settings, self._refused = declare(self)
        self.add_on_set_parameters_callback(self._on_parameters)
        if hasattr(self, "add_pre_set_parameters_callback"):  # from Iron on
            self.add_pre_set_parameters_callback(keep_types)
        for name in unknown_overrides(self):
            self.get_logger().warning(f"unknown parameter {name!r} is ignored; known are {', '.join(TABLE)}")
        take_turns(self, self._turn, lambda: self._state)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(
            _DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def autostart(self) -> None:
        """Configures and activates where the parameter `autostart` says so."""
        if self._settings.autostart:
            run_in_thread("autostart", self._autostart)

    def _autostart(self) -> None:
        with self._turn:
            done = TransitionCallbackReturn.SUCCESS
            is_active = self.trigger_configure() == done and self.trigger_activate() == done
            if not is_active and self._settings.exit_on_error and not self._is_ending:
                self.exit_code, self.finished = 1, True

    def make_executor(self) -> TransitionExecutor:
        """Serves the callbacks in one thread, and transitions beside it."""
        return TransitionExecutor(getattr(self, "_service_change_state", None))

    def close(self) -> bool:
        """Releases everything at the end of the process; False when a thread did not end in time."""
        if not self._turn.acquire(timeout=_END_TIMEOUT_S + _CONFIGURE_POLL_S):  # kept: there are no more transitions
            self._left_behind = True
        if self._worker is not None and not self._worker.close(_END_TIMEOUT_S):
            self._left_behind = True
        if not self._left_behind:  # else the worker may still want to publish
            self._save_times()
            for camera in self._cameras:
                camera.close()
        self._cameras = []
        logging.getLogger("anydepth_perception").removeHandler(self._log_handler)
        return not self._left_behind

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Loads the bundle, builds the engines of the ladder and profiles them."""
        return self._transition("configure", self._configure, "inactive", on_failure=self._release_model)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Opens the topics and starts to serve frames."""
        return self._transition("activate", self._activate, "active", on_failure=self._close_cameras)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stops serving and closes the topics."""
        return self._transition("deactivate", self._close_cameras, "inactive")

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Releases the engines and the worker thread."""
        return self._transition("cleanup", self._release_model, "unconfigured")

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Releases everything, from any state."""
        return self._transition("shutdown", self._release_all, "finalized")

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, with everything released."""
        return self._transition("error processing", self._release_all, "unconfigured")

    def _transition(
        self,
        name: str,
        action: Callable[[], None],
        reached: str,
        *,
        on_failure: Callable[[], None] = lambda: None,
    ) -> TransitionCallbackReturn:
        """Runs the work of a transition; rclpy itself would swallow what it raises."""
        before = self._state
        try:
            action()
        except Exception as error:
            reason = one_line(error) if isinstance(error, (ValueError, RuntimeError)) else _named(error)
            if self._is_ending:
                self.get_logger().info(f"{name} is given up: the process was asked to end")
                on_failure()
                return TransitionCallbackReturn.FAILURE
            self._problem = f"{name} failed: {reason}"
            self.get_logger().error(self._problem)
            self.get_logger().debug(traceback.format_exc())
            on_failure()
            self._state = before
            self._publish_diagnostics()
            return TransitionCallbackReturn.FAILURE
        self._state = reached
        self._problem = ""
        self.get_logger().info(f"{name}: done, the node is {reached}")
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if self._refused:
            raise ParameterError("; ".join(self._refused.values()))
        check_writable(self._settings.record_times)
        with self._lock:
            self._state, self._progress, settings = "configuring", "loading", self._settings
            worker = self._worker = Worker()
        loaded = worker.call(
            lambda: load_model(settings, progress=self._on_progress), self._check_ending, _CONFIGURE_POLL_S
        )
        with self._lock:  # what is live may have changed meanwhile, when nobody knew what the bundle allows
            self._settings = self._settings.checked(loaded.bundle.space, loaded.bundle.class_names)
            self._loaded = loaded

    @property
    def _model(self) -> Model | None:
        """What serves, or is ready to: while frames are served, a backend that is gone may be replaced."""
        return self._server.model if self._server is not None else self._loaded

    @property
    def _is_ending(self) -> bool:
        return self._stop is not None and self._stop.requested

    def _check_ending(self) -> None:
        if self._is_ending:
            raise RuntimeError("the process was asked to end")

    def _on_progress(self, text: str) -> None:
        """Called in the worker thread between the steps of configure; gives up those that are left."""
        self._progress = text
        self.get_logger().info(text)
        self._check_ending()

    def _activate(self) -> None:
        with self._lock:
            self._open_cameras()

    def _open_cameras(self) -> None:
        assert self._model is not None and self._worker is not None
        settings, model, worker = self._settings, self._model, self._worker
        self._frames = self.create_publisher(DiagnosticStatus, "~/frames", qos.FRAMES)
        check_distinct(self, settings.image_topics)
        prefixes = output_prefixes(settings.image_topics)
        for index, (topic, prefix) in enumerate(zip(settings.image_topics, prefixes, strict=True)):
            camera = Camera(
                self,
                index,
                topic=topic,
                prefix=prefix,
                settings=settings,
                class_names=model.bundle.class_names,
                frames=self._frames,
                enqueue=worker.put,
                counted_age=worker.counted_age,
            )
            self._cameras.append(camera)
        if settings.record_times:
            self._times = RecordedTimes(model.bundle, model.detector.groups, model.controller.step_ms)
        self._server = FrameServer(
            model,
            self._cameras,
            lambda: self._settings,
            worker,
            reload=lambda failing, reason: load_next_model(failing, reason, self._settings, self._on_progress),
            times=self._times,
        )
        worker.start(len(self._cameras), self._server.serve)

    def _close_cameras(self) -> None:
        if self._worker is not None and not self._worker.stop(_STOP_TIMEOUT_S):
            self.get_logger().warning(f"the frame being served did not end within {_STOP_TIMEOUT_S:.0f} s")
        with self._lock:
            self._loaded, self._server = self._model, None
            for camera in self._cameras:
                camera.close()
            self._cameras = []
            if self._frames is not None:
                self.destroy_publisher(self._frames)
                self._frames = None
        self._save_times()

    def _save_times(self) -> None:
        times, self._times = self._times, None
        if times is not None:
            times.save_or_tell(Path(self._settings.record_times).expanduser())

    def _release_model(self) -> None:
        timeout_s = _END_TIMEOUT_S if self._is_ending else _STOP_TIMEOUT_S
        if self._worker is not None and not self._worker.close(timeout_s):
            self._left_behind = True
            self.get_logger().warning(f"the worker did not end within {timeout_s:g} s and is left behind")
        with self._lock:
            self._worker = self._loaded = None
        if not self._is_ending:
            gc.collect()  # engines hang in cycles
            return_free_memory()

    def _release_all(self) -> None:
        self._close_cameras()
        self._release_model()

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        with self._lock:
            return self._set_parameters(parameters)

    def _set_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in parameters if parameter.name in TABLE}
        bundle = self._model.bundle if self._model is not None else None
        try:
            settings = self._settings.updated(
                values,
                configured=self._worker is not None,
                space=bundle.space if bundle is not None else None,
                class_names=bundle.class_names if bundle is not None else None,
            )
        except ParameterError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._settings = settings
        for name in values:
            self._refused.pop(name, None)
        for camera in self._cameras:
            camera.update(settings)
        return SetParametersResult(successful=True)

    def _publish_diagnostics(self) -> None:
        with self._lock:
            self._publish_all()

    def _publish_all(self) -> None:
        now_s = steady_s()
        name = self.get_fully_qualified_name().lstrip("/")
        model = self._model
        hardware_id = model.bundle.name if model is not None else ""
        camera_healths = [(camera, camera.health()) for camera in self._cameras]
        summary = summarise([camera.statistics for camera in self._cameras], now_s)
        values: dict[str, object] = {"state": self._state}
        if self._state == "configuring":
            values["progress"] = self._progress
        values |= detector_values(self._settings, model, summary, process_memory_bytes())
        values["depth_building"] = self._server.building if self._server is not None else ""
        system = self._system.look(free_depth_ms(self._settings, model, summary))
        values |= system_values(system.load)
        for event in system.events:
            if not isinstance(event, OverCurrent):  # a board at its limit has some each second: diagnostics warn of it
                self.get_logger().info(str(event))
            if isinstance(event, CapChange) and model is not None:
                model.announce_cap(event.side == "accelerator", event.log_ratio)
        healths = [self._own_health(model), *(health for _, health in camera_healths), *system.warnings]
        late = deadline_health(self._settings, model) if self._cameras else None
        health = worst(healths if late is None else [*healths, late])
        statuses = [status(f"{name}: detector", hardware_id, health, values)]
        for camera, camera_health in camera_healths:
            camera_values = {"deadline_ms": camera.deadline_ms, **frame_values(camera.statistics.summary(now_s))}
            statuses.append(status(f"{name}: {camera.topic}", hardware_id, camera_health, camera_values))
        self._diagnostics.publish(diagnostic_array(self.get_clock().now().to_msg(), statuses))

    def _own_health(self, model: Model | None) -> Health:
        if self._problem:
            return Health(DiagnosticStatus.ERROR, self._problem)
        server = self._server
        faults = list(server.faults if server is not None else model.faults if model is not None else [])
        if self._memory_problem:
            faults.append(self._memory_problem)
        if self.get_parameter("use_sim_time").value and self.get_clock().now().nanoseconds == 0:
            faults.append("use_sim_time is set, but no /clock is received: start what publishes it, or unset it")
        if faults:
            return Health(DiagnosticStatus.WARN, f"{self._state}, but {'; '.join(faults)}")
        text = f"{self._state}: {self._progress}" if self._state == "configuring" else self._state
        return Health(DiagnosticStatus.OK, text)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
