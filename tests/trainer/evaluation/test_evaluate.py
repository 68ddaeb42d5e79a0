"""Evaluation: the probes return the truth of drawn videos, shuffled labels return none, and a whole run on the tiny backbone.

Array legend: P prompts, S seeds, N controls.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation_support import FPS, clip, synthetic
from generation_support import output, run, save_random, small_config

from generator.io.checked_model import verified
from generator.io.checksummed_json import checksummed_text
from scenes.axes import AXES
from scenes.errors import InputError
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import load_backbone
from trainer.commands.evaluate import command
from trainer.config.evaluate import EvaluateSettings, parse_controls
from trainer.evaluation.axis_prompts import gather
from trainer.evaluation.drift import at_checkpoint
from trainer.evaluation.results import Accuracy, Validated, read_report
from trainer.evaluation.results_markdown import put_on_card
from trainer.evaluation.run import EvaluateRequest, evaluate, generate_videos, held_out
from trainer.evaluation.score import Measured, VideoShelf
from trainer.evaluation.verdict import axis_line
from trainer.pipelines.controlled_wan import ControlledWan
from trainer.probing.cached import Prober
from trainer.training.callbacks.metrics import Event
from trainer.training.checkpoints.checkpoint import Checkpoint, write_checkpoint

TINY_VIDEO = ["--width", "32", "--height", "32", "--frames", "1", "--steps", "1", "--guidance", "1", "--text-tokens", "12"]


# --- drawn truth ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def casts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Path]:
    """Sweeps of temperature over four prompts, drawn exactly, in a mode with control and one without."""
    folder = tmp_path_factory.mktemp("casts")
    return synthetic(folder, ["temperature"], 4, modes=("decoupled", "lora_only"))[1], folder


def entry(measured: Measured, arm: str = "decoupled") -> Accuracy:
    """Return the accuracy of an arm."""
    return next(one for one in measured.accuracy if one.arm == arm)


def test_casts_are_read_to_the_kelvin_without_a_fit(casts: tuple[Measured, Path]) -> None:
    found = entry(casts[0])
    assert found.share_read == 1.0 and found.sweeps == 4 and found.unit == "mired"
    assert found.rho.value == pytest.approx(1.0) and found.rho_absolute.value == pytest.approx(1.0)
    assert found.slope.value == pytest.approx(1.0, abs=0.03) and found.slope_absolute.value == pytest.approx(1.0, abs=0.03)
    assert found.median_error.value is not None and found.median_error.value <= AXES["temperature"].tolerance
    assert found.median_error_absolute.value is not None and found.median_error_absolute.value <= AXES["temperature"].tolerance
    assert found.resolution.value == pytest.approx(0.5), "every step of the sweep is told apart"
    assert [point.control for point in found.curve] == [-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5]
    for point in found.curve:
        assert point.median == pytest.approx(point.expected, abs=8.0) and (point.read, point.of) == (4, 4)
    assert [(side.side, side.goes_on) for side in found.extrapolation] == [("below", 1.0), ("above", 1.0)]
    assert [side.slope for side in found.extrapolation] == pytest.approx([1.0, 1.0], abs=0.15)


def test_an_arm_without_control_moves_nothing_and_is_exactly_consistent(casts: tuple[Measured, Path]) -> None:
    found = entry(casts[0], "lora_only")
    assert found.rho.value == 0.0 and found.slope.value == pytest.approx(0.0, abs=1e-9) and "no control" in found.note
    assert {one.arm for one in casts[0].consistency} == {"decoupled"}
    line = axis_line(found.model_copy(update={"share_read": 1.0}), casts[0].leakage)
    assert line.startswith("temperature: no control was found")


def test_the_verdict_and_leakage_of_a_true_control(casts: tuple[Measured, Path]) -> None:
    by_read = {one.read: one for one in casts[0].leakage}
    assert by_read["temperature"].share == pytest.approx(1.0, abs=0.02)
    assert by_read["shutter"].share is None and by_read["shutter"].sweeps == 0, "what does not move has no shutter"
    line = axis_line(entry(casts[0]), casts[0].leakage)
    assert line.startswith("temperature: the control works: a commanded mired gives") and "ρ 1.00" in line


def test_readings_are_remembered_and_a_cut_line_is_read_again(casts: tuple[Measured, Path], tmp_path: Path) -> None:
    one, other = clip("temperature", "temperature 0", 1.0), clip("temperature", "temperature 0", 0.0)
    first = Prober(tmp_path / "r.jsonl", FPS).read("temperature", one, other)
    stored = (tmp_path / "r.jsonl").read_text()
    assert stored.count("\n") == 1 and Prober(tmp_path / "r.jsonl", FPS).read("temperature", one, other) == first
    assert (tmp_path / "r.jsonl").read_text() == stored, "nothing was read again"
    (tmp_path / "r.jsonl").write_text(stored[:-20])
    again = Prober(tmp_path / "r.jsonl", FPS)
    assert again.read("temperature", one, other) == first and again.read("temperature", other, other).relative == 0.0
    assert Prober(tmp_path / "r.jsonl", FPS).read("temperature", one, other) == first
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3


def test_blur_is_read_on_its_own_scale_and_what_is_too_sharp_is_no_reading(tmp_path: Path) -> None:
    _, measured = synthetic(tmp_path, ["shutter"], 2, controls="-1,0,0.5,1")
    found = entry(measured)
    law = AXES["shutter"].default_law
    for point in found.curve:
        if point.control >= 0:
            assert point.absolute is not None
            assert AXES["shutter"].distance(point.absolute, law.value(point.control)) == pytest.approx(0.0, abs=0.25)
    videos = [video for sweep in measured.sweeps for video in sweep.videos if video.control == -1.0]
    assert any(video.absolute is None and "edges are sharp" in video.note for video in videos), [v.note for v in videos]
    assert found.share_sharp > 0 and found.share_read < 1
    assert found.rho_sharp_as_ties.value == pytest.approx(1.0), "an upper bound below all readings is in order"


def test_blur_discs_are_read_in_stops(tmp_path: Path) -> None:
    _, measured = synthetic(tmp_path, ["aperture"], 2, controls="-0.5,0,0.5,1")
    found = entry(measured)
    assert found.rho.value == pytest.approx(1.0) and found.slope.value == pytest.approx(1.0, abs=0.15)
    assert found.median_error.value is not None and found.median_error.value <= 2 * AXES["aperture"].tolerance
    assert found.share_read_absolute == 0.0 and found.rho_absolute.value is None, "the f-number itself is not in the pixels"


def test_shuffled_labels_collapse_to_no_control(tmp_path: Path) -> None:
    controls = parse_controls("-1..1:5")

    def shuffled(axis: str, prompt: str, control: float) -> np.ndarray:
        order = np.random.default_rng(int(prompt.split()[-1])).permutation(len(controls))
        return clip(axis, prompt, controls[order[controls.index(control)]])

    _, measured = synthetic(tmp_path, ["temperature"], 8, controls="-1..1:5", draw=shuffled)
    found = entry(measured)
    assert found.share_read > 0.7
    assert found.rho.value is not None and abs(found.rho.value) < 0.5
    assert found.slope.value is not None and abs(found.slope.value) < 0.5
    assert found.median_error.value is not None and found.median_error.value > 50
    assert found.rho.high is not None and found.rho.high < 0.5
    assert "the control works:" not in axis_line(found, measured.leakage)


def test_the_shelf_keeps_what_was_used_last(casts: tuple[Measured, Path]) -> None:
    names = sorted(path.stem for path in (casts[1] / "videos").glob("*.mp4"))[:3]
    size = VideoShelf(casts[1])(("videos", names[0])).nbytes
    shelf = VideoShelf(casts[1], kept_bytes=2 * size)
    first, second = (shelf(("videos", name)) for name in names[:2])
    assert shelf(("videos", names[0])) is first
    shelf(("videos", names[2]))
    assert shelf(("videos", names[0])) is first and shelf(("videos", names[1])) is not second


# --- a whole run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the tiny backbone, two adapters and a prompt file."""
    folder = tmp_path_factory.mktemp("evaluate")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        pipe = load_backbone("tiny-random")
        save_random(pipe, folder / "adapter", small_config("shutter", "temperature"), step=40)
        save_random(pipe, folder / "earlier", small_config("shutter", "temperature"), step=20)
        save_random(pipe, folder / "alone", small_config("temperature", lora=False))
        save_random(pipe, folder / "lora", small_config("shutter", control=False))
        words = ("red", "blue", "green", "white", "yellow", "small", "slow", "fast")
        (folder / "eight.txt").write_text("".join(f"a {word} ball\n" for word in words))
        (folder / "two.txt").write_text("a red ball\na blue cube\n")
        yield folder


WORDS = ["--features", "tiny", "--axis", "temperature", "--controls", "-1,0,1", "--modes", "decoupled,backbone_only"]


@pytest.fixture(scope="module")
def evaluated(home: Path) -> Path:
    """An evaluation of random weights with every part of it."""
    out = home / "out"
    words = ["--adapter", home / "adapter", "--prompts", home / "eight.txt", "--out", out, *WORDS, *TINY_VIDEO]
    output(command, *words, "--adapter-only", home / "alone", "--drift", home / "earlier")
    return out


def test_a_run_leaves_every_number(evaluated: Path, home: Path) -> None:
    report = read_report(evaluated)
    assert report.arms == ("decoupled", "backbone_only", "adapter_only", "text prompting") and report.main_arm == "decoupled"
    assert [one.arm for one in report.accuracy] == list(report.arms)
    assert {one.arm for one in report.fep} == {"decoupled", "adapter_only", "text prompting", "noise floor"}
    assert all(one.extractor.startswith("block ") and one.videos == 8 for one in report.fep)
    assert report.drift is not None and [point.step for point in report.drift.points] == [20, 40]
    assert report.drift.per_1000_steps is not None
    assert any("VQAScore" in note for note in report.notes) and any("backbone's own" in note for note in report.notes)
    assert {(one.metric, one.axis) for one in report.published} >= {("SSF", "shutter"), ("SS-FD", "temperature")}
    for sweep in report.sweeps:
        assert all((evaluated / video.video).is_file() for video in sweep.videos)
    names = {path.stem for path in (evaluated / "videos").glob("*.mp4")}
    assert len(names) == 8 * (3 + 1 + 2), "c = 0 once, the backbone once, two wordings"
    text = (evaluated / "results.md").read_text()
    assert text.startswith("## Measured control") and "| decoupled | temperature |" in text
    assert (evaluated / "report.html").stat().st_size < 30_000_000


def test_a_report_of_an_earlier_version_is_read(evaluated: Path, tmp_path: Path) -> None:
    """Earlier versions wrote FEP under `fast` and SVP under `slow`; the first ones wrote no `check` entry."""
    report = read_report(evaluated)
    tree = verified((evaluated / "report.json").read_bytes())
    tree["fast"], tree["slow"] = tree.pop("fep"), tree.pop("svp")
    for data in (checksummed_text(tree), json.dumps(tree).encode()):
        (tmp_path / "report.json").write_bytes(data)
        assert report.fep and report.svp and read_report(tmp_path) == report


def test_the_same_run_again_makes_nothing_anew(evaluated: Path, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in evaluated.rglob("*.mp4")}
    numbers = json.loads((evaluated / "report.json").read_text())
    next(iter(before)).unlink()
    words = ["--adapter", home / "adapter", "--prompts", home / "eight.txt", "--out", evaluated, *WORDS, *TINY_VIDEO]
    output(command, *words, "--adapter-only", home / "alone", "--drift", home / "earlier")
    after = {path: path.stat().st_mtime_ns for path in evaluated.rglob("*.mp4")}
    assert set(after) == set(before) and sum(after[path] != before[path] for path in before) == 1
    again = json.loads((evaluated / "report.json").read_text())
    assert {**numbers, "wall_s": 0, "check": ""} == {**again, "wall_s": 0, "check": ""}


def test_adapters_change_places_on_one_backbone(evaluated: Path, home: Path) -> None:
    """What was lent to other adapters gives the same numbers as a run without them."""
    with_others = read_report(evaluated)
    settings = EvaluateSettings.model_validate({**with_others.settings, "text_baseline": False})
    adapter = SavedAdapter.open(home / "adapter")
    request = EvaluateRequest(adapter=adapter, out=home / "plain", settings=settings, prompts=home / "eight.txt")
    assert generate_videos(request, Silent()) == 8 * (3 + 1) == len(list((home / "plain").rglob("*.mp4")))
    made = {path: path.stat().st_mtime_ns for path in (home / "plain").rglob("*.mp4")}
    plain = evaluate(request, Silent())
    assert made == {path: path.stat().st_mtime_ns for path in (home / "plain").rglob("*.mp4")}
    ours = {(one.arm, one.ssf, one.ss_fd) for one in plain.fep}
    assert ours <= {(one.arm, one.ssf, one.ss_fd) for one in with_others.fep}
    assert plain.accuracy[0] == with_others.accuracy[0]


class Silent:
    """A watch that says nothing."""

    def started(self, videos: int, finished: int, steps: int) -> None:
        """Videos are to be made."""

    def stepped(self, steps: int) -> None:
        """Steps were made."""

    def done(self, video: object) -> None:
        """A video is there."""

    def note(self, words: str) -> None:
        """Something worth knowing."""


def test_a_run_s_checkpoints_are_lent_and_given_back(home: Path, tmp_path: Path) -> None:
    pipe = ControlledWan.from_pretrained("tiny-random", home / "adapter")
    own = {f"transformer.{name}": p.detach().clone() for name, p in pipe.adapters["transformer"].parameters().items()}
    scaled = {name: 2.0 * tensor for name, tensor in own.items()}
    for step, weights in ((10, scaled), (30, {"transformer.other": torch.zeros(2)})):
        checkpoint = Checkpoint(step=step, parameters=weights, averaged=None, optimizer={}, losses=(), identity={})
        write_checkpoint(tmp_path, checkpoint, keep=5)

    def now() -> dict[str, torch.Tensor]:
        return {f"transformer.{name}": p.detach().clone() for name, p in pipe.adapters["transformer"].parameters().items()}

    with at_checkpoint(pipe, tmp_path, 10):
        torch.testing.assert_close(now(), scaled)
    torch.testing.assert_close(now(), own, rtol=0, atol=0)
    with pytest.raises(InputError, match="of another adapter"), at_checkpoint(pipe, tmp_path, 30):
        pass
    with pytest.raises(InputError, match="cannot be read"), at_checkpoint(pipe, tmp_path, 99):
        pass


def test_results_stand_on_the_card_once(evaluated: Path, home: Path) -> None:
    before = (home / "adapter" / "README.md").read_text()
    for _ in range(2):
        put_on_card(home / "adapter", read_report(evaluated))
    after = (home / "adapter" / "README.md").read_text()
    assert after.startswith(before.rstrip()) and after.count("## Measured control") == 1
    (home / "adapter" / "README.md").write_text(before)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--adapter", "adapter", "--prompts", "two.txt", "--features", "tiny"], r"2 prompts are too few .* at least 8"),
        (["--adapter", "adapter", "--prompts", "eight.txt", "--axis", "aperture"], r"does not control 'aperture'; it controls"),
        (["--adapter", "lora", "--prompts", "eight.txt"], "controls nothing"),
        (["--adapter", "adapter"], "there is no prompt to evaluate with"),
        (["--adapter", "adapter", "--prompts", "eight.txt", "--modes", "joined"], "modes"),
        (["--adapter", "alone", "--prompts", "eight.txt", "--modes", "joint"], "needs a LoRA"),
        (["--adapter", "adapter", "--prompts", "eight.txt", "--controls", "1..2"], "controls '1..2' are no numbers"),
        (["--adapter", "adapter", "--prompts", "eight.txt", "--features", "resnet"], "'resnet' is no extractor"),
        (["--adapter", "adapter", "--prompts", "eight.txt", "--adapter-only", "lora"], "controls nothing"),
        (["--adapter", "adapter", "--prompts", "two.txt", "--no-fep", "--drift", "lora"], "--no-fep leaves that out"),
        (["--adapter", "adapter", "--prompts", "eight.txt"], "--features tiny"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(
    home: Path, words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    names = {"adapter", "alone", "lora", "two.txt", "eight.txt"}
    placed = [home / word if word in names else word for word in words]
    result = run(command, *placed, "--out", home / "refused", *TINY_VIDEO)
    assert isinstance(result.exception, InputError) and "\n" not in str(result.exception)
    with pytest.raises(InputError, match=message):
        raise result.exception
    assert not (home / "refused").exists(), "nothing is made before everything is checked"


def test_captions_are_of_held_out_scenes_that_vary_the_axis(two_axes: Path, tints: Path) -> None:
    from generator.versions.reading.dataset import Dataset

    found = gather(EvaluateSettings(features=("tiny",)), ["temperature"], None, two_axes)
    labels = Dataset.open(two_axes).labels.to_pylist()
    held_out = {row["caption"] for row in labels if row["split"] in ("validation", "test")}
    assert found.all and set(found.all) <= held_out
    with pytest.raises(InputError, match="has no axis 'shutter'"):
        gather(EvaluateSettings(features=("tiny",)), ["shutter"], None, tints)
    own = gather(EvaluateSettings(prompts=("a", "b", "c"), prompts_count=2), ["shutter", "temperature"], None, tints)
    assert own.by_axis == {"shutter": ("a", "c"), "temperature": ("a", "c")}


def test_a_dataset_s_captions_are_enough_to_evaluate(home: Path, two_axes: Path) -> None:
    words = ["--adapter", home / "adapter", "--dataset", two_axes, "--out", home / "captions", *WORDS, *TINY_VIDEO]
    told = output(command, *words, "--no-fep", "--no-text-baseline", "--prompts-count", "1", "--json")
    report = json.loads(told)
    assert report["prompts_from"].startswith("captions of held-out scenes") and report["fep"] == []
    assert any("too few for intervals" in note for note in report["notes"])
    assert report["accuracy"][0]["rho"]["low"] is None
    assert (home / "captions" / "report.html").is_file()


def test_an_adapter_in_whose_videos_nothing_can_be_read_ends_with_exit_code_1(home: Path, tmp_path: Path) -> None:
    """Stills have no shutter to read. What the training beside the adapter found on held-out clips stands in the report."""
    shutil.copytree(home / "adapter", tmp_path / "adapter")
    checks = [(40, 0.5, -0.001), (80, 0.4, 0.1)]  # the adapter is of step 40
    events = [Event(step=s, kind="validation", values={"loss/shutter": loss, "gap/shutter": gap}) for s, loss, gap in checks]
    (tmp_path / "metrics.jsonl").write_text("".join(event.line() for event in events))
    words = ["--adapter", tmp_path / "adapter", "--prompts", home / "two.txt", "--out", tmp_path / "out", *TINY_VIDEO]
    given = ["--axis", "shutter", "--controls", "-1,0,1", "--features", "tiny", "--modes", "decoupled"]
    result = run(command, *words, *given, "--no-fep", "--no-text-baseline", "--json")
    assert result.exit_code == 1 and "could read no video of this adapter" in result.stderr
    report = read_report(tmp_path / "out")
    assert report.verdict[0].startswith("shutter: the probe could read 0 % of the videos, too few to say")
    assert report.validated == {"shutter": Validated(step=40, loss=0.5, gap=-0.001)}
    assert (tmp_path / "out" / "report.html").is_file(), "what there is to see is written all the same"


@pytest.mark.parametrize(
    ("named", "step", "gap"), [("adapter", 80, 0.1), ("checkpoint-40", 40, -0.001), ("checkpoint-20", 20, None)]
)
def test_validation_is_that_of_the_step_wherever_the_adapter_lies_in_its_run(
    named: str, step: int, gap: float | None, tmp_path: Path
) -> None:
    checks = [(40, 0.5, -0.001), (80, 0.4, 0.1)]
    events = [Event(step=s, kind="validation", values={"loss/shutter": loss, "gap/shutter": gap}) for s, loss, gap in checks]
    (tmp_path / "metrics.jsonl").write_text("".join(event.line() for event in events))
    folder = tmp_path / named if named == "adapter" else tmp_path / named / "adapter"
    folder.mkdir(parents=True)
    (folder / "control.json").write_text("{}")
    assert {axis: one.gap for axis, one in held_out(folder, step).items()} == ({} if gap is None else {"shutter": gap})


def test_the_log_of_another_training_is_not_the_adapter_s(tmp_path: Path) -> None:
    """An adapter that was put into a run's folder under another name, or that is of another backbone than the run."""
    event = Event(step=4, kind="validation", values={"loss/shutter": 0.5, "gap/shutter": 0.1})
    (tmp_path / "metrics.jsonl").write_text(event.line())
    for name in ("adapter", "mine", "deeper/mine"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "control.json").write_text("{}")
    assert set(held_out(tmp_path / "adapter", 4, {"transformer": "a"})) == {"shutter"}
    assert held_out(tmp_path / "mine", 4) == {} == held_out(tmp_path / "deeper" / "mine", 4)
    identity = {"backbone transformer": "b"}
    checkpoint = Checkpoint(step=4, parameters={}, averaged=None, optimizer={}, losses=(), identity=identity)
    write_checkpoint(tmp_path, checkpoint, keep=1)
    assert held_out(tmp_path / "adapter", 4, {"transformer": "a"}) == {}
    assert set(held_out(tmp_path / "adapter", 4, {"transformer": "b"})) == {"shutter"}


def test_clip_from_a_folder_scores_videos_against_their_words(home: Path) -> None:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    from trainer.backbones.tiny_random import build_tokenizer

    tokenizer, folder = build_tokenizer(), home / "clip"
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": len(tokenizer), "eos_token_id": 1, "bos_token_id": 0, "pad_token_id": 0}
    config = CLIPConfig(text_config=tower | words, vision_config=tower | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    for part in (CLIPModel(config), tokenizer, CLIPImageProcessor(size=32, crop_size=32)):
        part.save_pretrained(folder)
    given = ["--adapter", home / "adapter", "--prompts", home / "two.txt", "--out", home / "with-clip", "--axis", "temperature"]
    output(command, *given, "--controls", "-1,0,1", "--no-fep", "--features", f"clip={folder}", *TINY_VIDEO)
    report = read_report(home / "with-clip")
    assert report.extractors == (f"CLIP ({folder})",)
    scores = {one.arm: one.text_video.value for one in report.svp}
    assert set(scores) == {"decoupled", "joint", "lora_only", "backbone_only", "text prompting"}
    assert all(score is not None and -1 <= score <= 1 for score in scores.values()) and len(set(scores.values())) > 1
