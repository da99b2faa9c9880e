"""Ends the processes that tools start."""

from __future__ import annotations

import signal
import subprocess

_END_S = 5.0


def end_process(process: subprocess.Popen[bytes]) -> None:
    """SIGINT, and SIGKILL where that does not help within 5 s; nothing where the process is gone."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
