"""The simulation: traces, the clairvoyant, baselines, and what the controller reaches on seeds nothing was tuned on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from spaces import EIGHT

from anydepth_perception.depth.simulation import __main__ as command
from anydepth_perception.depth.simulation.baselines import BASELINES
from anydepth_perception.depth.simulation.loads import DEADLINE_MS, KINDS, network, synthetic
from anydepth_perception.depth.simulation.play import clairvoyant, play
from anydepth_perception.depth.simulation.report import AUTO, POLICIES, run_policy, simulate, summary
from anydepth_perception.depth.simulation.trace import TraceError, measured_percentiles, read_trace
from anydepth_perception.depth.space import DepthSpace

SHIPPED = Path(__file__).parents[3] / "config" / "times" / "busy-two-cores.npz"


def test_network_has_the_paper_s_ends_and_all_configurations() -> None:
    made = network()
    assert len(made.configs) == 1536
    assert made.average_precision[made.space.base] == pytest.approx(0.488)
    assert made.average_precision[made.space.full] == pytest.approx(0.533)


@pytest.mark.parametrize("kind", KINDS)
def test_loads_are_the_same_for_a_seed_and_differ_between_seeds(kind: str) -> None:
    one, again, other = synthetic(kind, 1, 50), synthetic(kind, 1, 50), synthetic(kind, 2, 50)
    np.testing.assert_array_equal(one.step_ms, again.step_ms)
    assert (one.step_ms != other.step_ms).any()
    assert (one.step_ms > 0.0).all()


def test_clairvoyant_takes_the_best_of_those_in_time() -> None:
    trace = synthetic("mixed", 5, 60)
    found = []
    for frame in range(len(trace)):
        best = 0.0
        for config, value in trace.network.average_precision.items():
            steps = trace.network.space.route(config)
            total = sum(trace.step_ms[frame, trace.network.space.steps.index(step)] for step in steps)
            if total + trace.preprocess_ms[frame] + trace.postprocess_ms[frame] <= DEADLINE_MS:
                best = max(best, value)
        found.append(best)
    oracle = clairvoyant(trace, DEADLINE_MS)
    assert oracle.effective_ap == pytest.approx(np.mean(found))
    assert oracle.feasible.tolist() == [best > 0.0 for best in found]


@pytest.mark.parametrize("name", ["full", "base"])
def test_fixed_depths_have_their_own_ap_and_times(name: str) -> None:
    trace = synthetic("steps", 3, 200)
    config = getattr(trace.network.space, name)
    played = play(BASELINES[name](trace.network), trace, DEADLINE_MS)
    np.testing.assert_allclose(played.frame_ms, trace.frame_ms(config))
    assert played.outcome.mean_ap == pytest.approx(100 * trace.network.average_precision[config])
    assert played.outcome.gain_percent == pytest.approx(0.0) or name == "full"


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_follow_a_load_that_is_steady(name: str) -> None:
    trace = synthetic("steady", 3, 300)
    loose = play(BASELINES[name](trace.network), trace, 60.0).outcome
    assert loose.miss_percent < 2.0
    assert loose.mean_ap > 51.0 or name == "base"


def test_the_controller_keeps_its_promise_on_seeds_that_nothing_was_tuned_on() -> None:
    runs = simulate([701], 2500, (AUTO, *BASELINES))
    auto = summary(runs)
    assert auto["avoidable_percent_max"] <= 1.0
    assert auto["avoidable_percent_mean"] <= 0.5
    assert auto["oracle_percent"] >= 98.8
    assert auto["gain_percent"] >= 85.0
    assert auto["misses_per_load_step"] <= 2
    assert all(summary(runs, name)["effective_ap"] < auto["effective_ap"] for name in BASELINES)


@pytest.mark.parametrize(("percentile", "gain"), [(75, 65.0), (90, 75.0), (97, 75.0)])
def test_recorded_times_are_replayed(percentile: int, gain: float) -> None:
    trace = read_trace(SHIPPED)
    assert len(trace) == 3000 and trace.network.space.stages == EIGHT.stages
    outcome = run_policy(AUTO, trace, measured_percentiles(trace)[percentile]).outcome
    assert outcome.avoidable_percent <= 1.0
    assert outcome.gain_percent >= gain


def arrays(**changed: object) -> dict[str, object]:
    """Two recorded frames of a network with two stages, the last two entries as one engine."""
    space = DepthSpace.of(("stem", "a", "b", "head"), ("a", "b"), ("a", "b"))
    configs = list(space.all())
    return {
        "entries": np.array(["stem", "a", "b"]),
        "configuration": np.array(["FF", "EE"]),
        "entry_ms": np.array([[1.0, 2.0, 9.0], [2.0, 1.0, 3.0]]),
        "preprocess_ms": np.ones(2),
        "postprocess_ms": np.ones(2),
        "frame_ms": np.array([14.5, 8.0]),
        "period_ms": np.array(50.0),
        "steps": np.array([str(step) for step in space.steps]),
        "step_ms": np.array([1.0, 1.0, 2.0, 1.0, 2.0, 1.0]),
        "configurations": np.array([str(config) for config in configs]),
        "average_precision": np.linspace(0.4, 0.5, len(configs)),
        **changed,
    }


def test_a_recorded_frame_took_what_it_took_and_other_depths_its_slowdown(tmp_path: Path) -> None:
    np.savez(tmp_path / "times.npz", **arrays())  # type: ignore[arg-type]
    trace = read_trace(tmp_path / "times.npz")
    space = trace.network.space
    assert trace.frame_ms(space.full)[0] == pytest.approx(14.5)
    assert trace.frame_ms(space.base)[1] == pytest.approx(8.0)
    # The last engine took 9 ms for 3 profiled ones: 1.8 times as long, and a stall of 3.6 ms; at base 2 * 1.8 + 3.6.
    assert trace.frame_ms(space.base)[0] == pytest.approx(1.0 + 1.0 + 7.2 + 2.0 + 0.5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"entry_ms": np.array([[1.0, np.nan, 9.0], [2.0, 1.0, 3.0]])}, "entry_ms holds a time that is negative"),
        ({"frame_ms": np.array([-1.0, 8.0])}, "frame_ms holds a time that is negative"),
        ({"configuration": np.array(["FF", "deep"])}, "deep"),
        ({"step_ms": np.zeros(6)}, "step_ms"),
        ({"entries": np.array(["stem", "a", "c"])}, "'c' of entries is not in steps"),
    ],
)
def test_damaged_times_are_refused_with_the_reason(tmp_path: Path, changed: dict[str, object], words: str) -> None:
    np.savez(tmp_path / "times.npz", **arrays(**changed))  # type: ignore[arg-type]
    with pytest.raises(TraceError, match=words):
        read_trace(tmp_path / "times.npz")


def test_a_file_without_times_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "times.npz", entries=np.array(["stem"]))
    with pytest.raises(TraceError, match="lacks the array 'steps'; record it again"):
        read_trace(tmp_path / "times.npz")
    (tmp_path / "times.npz").write_bytes(b"no archive")
    with pytest.raises(TraceError, match="cannot be read"):
        read_trace(tmp_path / "times.npz")
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "nowhere.npz")


def test_command_prints_tables_and_json_and_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "3", "--frames", "60", "--policies", "auto,base", "--output", str(tmp_path)]
    assert command.main(options) == 0
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    assert set(report["summary"]) == {"auto", "base"} and report["decide_us_p50"] > 0.0
    assert "### cotenant" in printed
    assert json.loads((tmp_path / "report.json").read_text())["runs"][0]["outcome"]["mean_ap"] > 0.0


def test_command_replays_a_trace_with_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    np.savez(tmp_path / "times.npz", **arrays())  # type: ignore[arg-type]
    options = ["--trace", str(tmp_path / "times.npz"), "--deadlines", "9,12", "--output", str(tmp_path)]
    assert command.main([*options, "--policies", "auto,full"]) == 0
    assert "### 12.0 ms" in capsys.readouterr().out
    assert (tmp_path / "deadlines.png").stat().st_size > 10_000


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--trace", str(tmp_path / "nowhere.npz")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        command.main(["--policies", "clairvoyant"])
    assert "clairvoyant" in capsys.readouterr().err and len(POLICIES) == 9
