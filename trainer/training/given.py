"""A new start from given weights (`train.from`): of an adapter's folder, or of a checkpoint, on other data or settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffusers import WanTransformer3DModel

from scenes.errors import InputError
from trainer.adapters.card import CARD
from trainer.adapters.place import adapter_place
from trainer.adapters.saved import SavedAdapter
from trainer.backbones.load import fingerprint
from trainer.control import AdapterConfig, AxisControl, ControlConfig, WanAdapter
from trainer.training.checkpoints.checkpoint import read_latest

# Parts of an adapter's configuration, and the setting that says each.
CONTROL_KEYS = ("blocks", "rank", "alpha", "tokens", "gate")
UNSET_KEYS = ("embed_dim", "hidden_dim")  # of the control embedding: no setting says them
LORA_KEYS = ("rank", "alpha")


@dataclass(frozen=True)
class Given:
    """Weights that a training starts from: their hash, and the adapter, which a run that goes on needs not."""

    place: str
    digest: str
    saved: SavedAdapter | None


def find_given(place: str, run: Path | None = None) -> Given:
    """Return the given weights of a run in a folder.

    Where they are gone and the run has a checkpoint, which holds what became of them, the hash is as recorded there. Raises
    InputError where they are gone and it has none.
    """
    reason = None
    try:
        folder = adapter_place(Path(place).expanduser())
    except InputError as error:
        reason = error
    else:
        if (folder / CARD).is_file():
            saved = SavedAdapter.open(folder)
            return Given(place, saved.digest, saved)
    latest = None if run is None else read_latest(run)
    recorded = None if latest is None else latest.identity.get("from")
    if isinstance(recorded, str):
        return Given(place, recorded, None)
    if reason is not None:
        raise reason
    SavedAdapter.open(folder)  # says what it is not
    raise InputError(f"train.from = {place} is no adapter; give an adapter's folder or a checkpoint's")


def check_given(
    place: str, saved: SavedAdapter, config: AdapterConfig, transformers: Mapping[str, WanTransformer3DModel]
) -> tuple[str, ...]:
    """Return what a person should know of a start from given weights; raises InputError where they do not fit.

    `place` is how it was named, `config` what is to train, `transformers` those that it trains on. Values of the axes may mean
    something else in the new data, which is said.
    """
    card = saved.card
    _same_parts(place, card.config, config)
    fingerprints: dict[str, str] = {str(name): digest for name, digest in card.backbone.fingerprints.items()}
    own, wanted = set(fingerprints), set(transformers)
    if own != wanted:
        raise InputError(
            f"train.from = {place} adapts {' and '.join(sorted(own))}, this training {' and '.join(sorted(wanted))}; set "
            "train.backbone.experts to the same"
        )
    for name, transformer in transformers.items():
        if transformer.device.type == "meta":  # a dry run has no weights to tell by
            continue
        if fingerprint(transformer) != fingerprints[name]:
            raise InputError(
                f"train.from = {place} was trained on {card.backbone.id}, and this backbone's '{name}' is another one; set "
                "train.backbone.name to the adapter's"
            )
    before = card.config.control.axes if card.config.control is not None else ()
    now = config.control.axes if config.control is not None else ()
    return (f"starts from {place}, {card.step} steps old; the control acts in full from the first step", *_laws(before, now))


def load_given(saved: SavedAdapter, adapters: Mapping[str, WanAdapter]) -> None:
    """Copy given weights into fresh adapters."""
    weights = saved.weights()
    for name, adapter in adapters.items():
        adapter.load(weights[name].control, weights[name].lora, str(saved.folder))


def _same_parts(place: str, before: AdapterConfig, now: AdapterConfig) -> None:
    """Raise InputError naming the setting in which a given adapter differs from the one that is to train."""
    arms = [(config.control is not None, config.lora is not None) for config in (before, now)]
    if arms[0] != arms[1]:
        arm = {(True, True): "joint", (True, False): "adapter_only", (False, True): "lora_only"}[arms[0]]
        raise InputError(f"train.from = {place} is of another arm than what is to train; set train.adapter.arm = '{arm}'")
    pairs: list[tuple[str, object, object]] = []
    if before.control is not None and now.control is not None:
        pairs.append(("axes", _names(before.control), _names(now.control)))
        pairs += [(key, getattr(before.control, key), getattr(now.control, key)) for key in CONTROL_KEYS]
        for key in UNSET_KEYS:
            its, own = getattr(before.control, key), getattr(now.control, key)
            if its != own:
                raise InputError(
                    f"train.from = {place} has {key} {its}, and adapters are trained with {own} here; start from one with {own}"
                )
        if before.control.gate == "fixed":  # a learned one starts where the given one got to
            pairs.append(("gate_value", before.control.gate_value, now.control.gate_value))
    if before.lora is not None and now.lora is not None:
        pairs += [(f"lora_{key}", getattr(before.lora, key), getattr(now.lora, key)) for key in LORA_KEYS]
    for key, its, asked in pairs:
        if its != asked:
            raise InputError(
                f"train.from = {place} has {key} {_words(its)}, the settings ask for {_words(asked)}; set train.adapter.{key} "
                "to the adapter's"
            )


def _names(control: ControlConfig) -> tuple[str, ...]:
    return tuple(axis.name for axis in control.axes)


def _laws(before: Sequence[AxisControl], now: Sequence[AxisControl]) -> list[str]:
    """Return a line for every axis whose control meant other values in the given adapter."""
    return [
        f"c = -1 to 1 of {new.name} meant {old.format(-1.0)} to {old.format(1.0)} in the given adapter and is "
        f"{new.format(-1.0)} to {new.format(1.0)} in this data: the control is learned anew"
        for old, new in zip(before, now, strict=True)
        if old.law != new.law
    ]


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
