"""The training benchmarks run where there is no GPU, measure what they say, and say what they do not."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as a person does, on one thread without a GPU."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)


def test_a_step_is_measured_on_the_cpu_and_the_rest_is_said_to_be_unmeasured(tmp_path: Path) -> None:
    small = ("--height", "64", "--width", "64", "--frames", "5", "--steps", "1", "--warmup", "0")
    done = run("train_step.py", *small, "--quantization", "none", "int8", "--out", str(tmp_path / "step"))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "step.json").read_text())
    assert [(row["case"]["checkpointing"], row["case"]["quantization"]) for row in report["rows"]] == [
        (False, "none"),
        (False, "int8"),
        (True, "none"),
        (True, "int8"),
    ]
    for row in report["rows"]:
        assert row["failed"] is None and row["peak_memory_gb"] is None and row["tokens"] == 2 * 4 * 4
        assert row["tokens_per_s"] == pytest.approx(row["tokens"] / row["step_s"])
        assert row["mfu"] == pytest.approx(row["model_tflop"] * 1e12 / row["step_s"] / report["peak_flops"])
        assert (row["hfu"] > row["mfu"]) == row["case"]["checkpointing"]
    text = (tmp_path / "step.md").read_text()
    assert "Unmeasured: wan2.1-t2v-14b" in text and "By formula, not measured" in text and "unmeasured" in done.stdout


def test_a_peak_is_that_of_the_device_and_nothing_for_an_unknown_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    peak_flops = importlib.import_module("step_parts").peak_flops
    assert peak_flops("NVIDIA H100 80GB HBM3") == peak_flops("NVIDIA H200") == 989e12
    assert peak_flops("NVIDIA H100 PCIe") == 756e12 and peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("AMD EPYC") is None


def test_the_overhead_is_a_ratio_of_the_two_arms(tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    done = run("control_overhead.py", "--backbone", "tiny-random", "--size", "64", "--pairs", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    lower, upper = report["ratio_quartiles"]
    assert lower <= report["ratio_median"] <= upper and report["pairs"] == 2 and report["video_tokens"] == 16
    assert 1 < report["ratio_of_operations"] < 1.1
    assert report["met"] == (report["ratio_median"] <= report["target"] == 1.03)


def test_the_committed_overhead_is_within_its_target() -> None:
    report = json.loads((RESULTS / "control_overhead.json").read_text())
    assert report["met"] and report["pairs"] >= 10 and report["video_tokens"] >= 1000
