"""Discrete events between two readings of a machine."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from anydepth_perception.profile.events import CapChange, OverCurrent, PowerModeChange, discrete_events
from anydepth_perception.profile.system import Clock, SystemLoad

LOAD = SystemLoad(
    core_loads=(0.1, 0.2),
    own_cpu_load=0.1,
    cpu_clocks={"policy0": Clock(1190.4, 1728.0), "policy4": Clock(729.6, 1728.0)},
    gpu_load=0.4,
    gpu_clock=Clock(624.75, 1020.0),
    temperatures_c={"cpu-thermal": 50.0},
    power_mode="MAXN_SUPER (nvpmodel 2)",
    over_current={"oc1": 0, "oc3": 37},
)


def test_utilisation_current_clocks_and_temperatures_are_no_events() -> None:
    after = replace(
        LOAD,
        core_loads=(0.9, 1.0),
        own_cpu_load=0.9,
        cpu_clocks={"policy0": Clock(115.2, 1728.0), "policy4": Clock(None, 1728.0)},
        gpu_load=1.0,
        gpu_clock=Clock(306.0, 1020.0),
        temperatures_c={"cpu-thermal": 97.0},
    )
    assert discrete_events(LOAD, after) == []


def test_change_of_the_power_mode_is_one() -> None:
    after = replace(LOAD, power_mode="15W (nvpmodel 0)")
    assert discrete_events(LOAD, after) == [PowerModeChange("MAXN_SUPER (nvpmodel 2)", "15W (nvpmodel 0)")]


def test_lower_cap_of_the_gpu_raises_the_slowdown_of_the_accelerator() -> None:
    (event,) = discrete_events(LOAD, replace(LOAD, gpu_clock=Clock(612.0, 612.0)))
    assert isinstance(event, CapChange) and event.side == "accelerator"
    assert event.log_ratio == pytest.approx(math.log(1020 / 612))


def test_higher_cap_lowers_the_slowdown_by_as_much() -> None:
    lower = replace(LOAD, gpu_clock=Clock(612.0, 612.0))
    ((down,), (up,)) = (discrete_events(LOAD, lower), discrete_events(lower, LOAD))
    assert isinstance(down, CapChange) and isinstance(up, CapChange)
    assert up.log_ratio == pytest.approx(-down.log_ratio)


def test_caps_of_all_policies_make_one_event_of_the_host() -> None:
    clocks = {"policy0": Clock(864.0, 864.0), "policy4": Clock(864.0, 864.0)}
    (event,) = discrete_events(LOAD, replace(LOAD, cpu_clocks=clocks))
    assert isinstance(event, CapChange) and event.side == "host"
    assert event.log_ratio == pytest.approx(math.log(2))


def test_cap_of_one_policy_of_two_counts_half() -> None:
    clocks = {**LOAD.cpu_clocks, "policy4": Clock(432.0, 432.0)}
    (event,) = discrete_events(LOAD, replace(LOAD, cpu_clocks=clocks))
    assert isinstance(event, CapChange) and event.log_ratio == pytest.approx(math.log(4) / 2)


def test_policy_that_goes_or_comes_is_no_event() -> None:
    fewer = replace(LOAD, cpu_clocks={"policy0": LOAD.cpu_clocks["policy0"]})
    assert discrete_events(LOAD, fewer) == discrete_events(fewer, LOAD) == []


def test_risen_counter_is_an_event_with_its_rise() -> None:
    after = replace(LOAD, over_current={"oc1": 0, "oc3": 40})
    assert discrete_events(LOAD, after) == [OverCurrent("oc3", 3)]


def test_counter_that_starts_anew_or_is_new_is_no_event() -> None:
    assert discrete_events(LOAD, replace(LOAD, over_current={"oc1": 0, "oc2": 9, "oc3": 2})) == []


def test_what_either_reading_lacks_is_no_event() -> None:
    assert discrete_events(LOAD, SystemLoad()) == discrete_events(SystemLoad(), LOAD) == []
