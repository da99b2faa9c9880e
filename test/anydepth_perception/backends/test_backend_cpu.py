"""What is known of this machine's CPU: its model, its features, and a description that tells it from others."""

from __future__ import annotations

from pathlib import Path

from anydepth_perception.backends.cpu import cpu_features, cpu_model, describe_cpu

X86 = "processor\t: 0\nmodel name\t: Some CPU 9000\nflags\t\t: sse fpu avx2\n\nprocessor\t: 1\nmodel name\t: Other\n"
ARM = "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd\nModel\t: Some Board\n"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_model_and_features_are_those_of_the_first_cpu(tmp_path: Path) -> None:
    file = written(tmp_path / "cpuinfo", X86)
    assert (cpu_model(file), cpu_features(file)) == ("Some CPU 9000", "avx2 fpu sse")


def test_an_arm_board_is_called_by_its_model(tmp_path: Path) -> None:
    file = written(tmp_path / "cpuinfo", ARM)
    assert (cpu_model(file), cpu_features(file)) == ("Some Board", "asimd fp")


def test_cpus_that_differ_in_one_feature_have_different_descriptions(tmp_path: Path) -> None:
    files = [written(tmp_path / str(index), text) for index, text in enumerate((X86, X86.replace("avx2", "avx512f")))]
    assert describe_cpu(files[0]) != describe_cpu(files[1])


def test_the_order_of_features_does_not_matter(tmp_path: Path) -> None:
    turned = X86.replace("sse fpu", "fpu sse")
    files = [written(tmp_path / str(index), text) for index, text in enumerate((X86, turned))]
    assert describe_cpu(files[0]) == describe_cpu(files[1])


def test_a_system_that_tells_nothing_is_described_still(tmp_path: Path) -> None:
    assert describe_cpu(tmp_path / "missing").strip()
