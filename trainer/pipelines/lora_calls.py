"""diffusers' LoRA calls on a pipeline that carries a control adapter: they act on other LoRAs, never on the adapter's own.

The adapter's LoRA (named "stopdown") is governed by `mode` and `strength` of a call. What cannot be kept apart is refused.
"""

from __future__ import annotations

import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from diffusers import WanPipeline
from peft.tuners.tuners_utils import BaseTunerLayer

from scenes.errors import InputError, closest
from trainer.backbones.load import EXPERTS
from trainer.control import WanAdapter
from trainer.control.intact import fault
from trainer.control.lora import LORA_NAME
from trainer.formats.foreign_lora import check_fits, plain_weights, read_lora

OWN = f"'{LORA_NAME}' is the adapter's own LoRA: its mode and strength in a call govern it (strength=0 is the bare backbone)"


class GuardedLora(WanPipeline):
    """A WanPipeline whose LoRA calls leave the adapter's own LoRA alone."""

    adapters: Mapping[str, WanAdapter]

    def load_lora_weights(
        self, pretrained_model_name_or_path_or_dict: Any, adapter_name: str | None = None, hotswap: bool = False, **kwargs: Any
    ) -> None:
        """Load another LoRA beside the adapter, as WanPipeline does; the adapter's own acts as before."""
        _not_own([adapter_name] if adapter_name is not None else [])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # there is one: the adapter's
            super().load_lora_weights(
                pretrained_model_name_or_path_or_dict, adapter_name=adapter_name, hotswap=hotswap, **kwargs
            )
        self._restore()

    def add_lora(
        self, file: str | Path, weight: float = 1.0, *, expert: str | None = None, name: str | None = None
    ) -> tuple[str, ...]:
        """Put another program's LoRA file beside the adapter, scaled by `weight`; returns what was assumed or left out of it.

        Reads what `trainer.formats.foreign_lora` names. `expert` is the transformer that it is for, all of them if not given;
        `name` is what `set_adapters` and `delete_adapters` call it, the file's if not given. Raises InputError for what
        is no LoRA of this backbone.
        """
        if not math.isfinite(weight):
            raise InputError(f"weight {weight} of LoRA {file} is not a number; give a finite one, 1 as trained")
        lora = read_lora(Path(file))
        known = {part: getattr(self, part, None) for part in EXPERTS}
        chosen = {part: model for part, model in known.items() if model is not None and expert in (None, part)}
        if not chosen:
            raise InputError(f"LoRA {file} is for '{expert}', which this backbone lacks; leave the name out")
        for model in chosen.values():
            check_fits(lora, model)
        label = name if name is not None else re.sub(r"\W+", "_", Path(file).stem)
        while name is None and label in (LORA_NAME, *self.other_loras()):
            label += "_"
        _not_own(label)
        for model in chosen.values():
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Already found a `peft_config`")
                model.load_lora_adapter(plain_weights(lora, weight), prefix=None, adapter_name=label, _pipeline=self)
        self._restore()
        return lora.notes

    def unload_lora_weights(self) -> None:
        """Take every other LoRA off; the adapter stays."""
        self.delete_adapters(self.other_loras())

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        """Delete other LoRAs by name; raises InputError for the adapter's own, and for one that is not there."""
        names = self._others(adapter_names)
        for layer, _ in self._layers():  # peft would activate a LoRA of its choice in the place of a deleted one
            layer.set_adapter([name for name in layer.active_adapters if name not in names])
        for part in self.adapters.values():
            here = [name for name in names if name in getattr(part.transformer, "peft_config", {})]
            if here and set(part.transformer.peft_config) == set(here):  # no LoRA is left: else peft's wrappers stay
                part.transformer.unload_lora()
            elif here:
                part.transformer.delete_adapters(here)
        self._restore()

    def set_adapters(self, adapter_names: list[str] | str, adapter_weights: Any = None) -> None:
        """Choose which other LoRAs act, and how strongly; raises InputError for the adapter's own, and for one not there."""
        names = self._others(adapter_names)
        if not names:  # diffusers has no words for none
            self.disable_lora()
            return
        super().set_adapters(names, adapter_weights)
        self._restore()

    def disable_lora(self) -> None:
        """Let no other LoRA act until `enable_lora`; the adapter's own goes on."""
        for layer, others in self._layers():
            layer.set_adapter([name for name in layer.active_adapters if name not in others])
        self._restore()

    def enable_lora(self) -> None:
        """Let all other LoRAs act again."""
        for layer, others in self._layers():
            layer.enable_adapters(True)
            layer.set_adapter(others)
        self._restore()

    def fuse_lora(self, components: Any = ("transformer",), **options: Any) -> None:
        """Refuse where the adapter has a LoRA, which does not act under a merged one; else merge the other LoRAs."""
        if any(adapter.config.lora is not None for adapter in self.adapters.values()):
            raise InputError(
                "fuse_lora would switch this adapter's own LoRA off: it does not act under a merged one; merge the other "
                "LoRA on a WanPipeline before the adapter is put on it (ControlledWan.from_pipeline), or this adapter's "
                "with 'stopdown adapter merge'"
            )
        super().fuse_lora(components=list(components), **options)

    def set_lora_device(self, adapter_names: list[str], device: Any) -> None:
        """Move other LoRAs to a device; raises InputError for the adapter's own, which goes where the pipeline goes."""
        super().set_lora_device(self._others(adapter_names), device)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **options: Any) -> NoReturn:
        """Refuse: the folder would name parts of this project that nothing else loads."""
        raise InputError(
            f"a pipeline that carries an adapter cannot be saved to {save_directory}: nothing would load it; 'stopdown adapter "
            "merge' writes a backbone with the LoRA merged in, the adapter's own folder is what is to be kept"
        )

    @classmethod
    def from_pipe(cls, pipeline: Any, **options: Any) -> NoReturn:
        """Refuse: an adapter is needed."""
        raise InputError("from_pipe gives no adapter; use ControlledWan.from_pipeline(pipe, adapter_folder)")

    def other_loras(self) -> list[str]:
        """Return the names of the LoRAs beside the adapter's own."""
        names = dict.fromkeys(name for part in self.adapters.values() for name in getattr(part.transformer, "peft_config", {}))
        return [name for name in names if name != LORA_NAME]

    def _others(self, names: list[str] | str) -> list[str]:
        """Return names as a list; raises InputError for the adapter's own, and for one that no LoRA here has."""
        given, known = _not_own(names), self.other_loras()
        for name in given:
            if name not in known:
                raise InputError(f"there is no LoRA '{name}' here{closest(name, known)}; there is {', '.join(known) or 'none'}")
        return given

    def check_intact(self) -> None:
        """Raise InputError where the adapter's parts were removed, merged, disabled or replaced by calls on a transformer."""
        for name, adapter in self.adapters.items():
            if wrong := fault(adapter):
                raise InputError(
                    f"this adapter's {wrong} in '{name}'; or load the adapter again (ControlledWan.from_pretrained)"
                )

    def _layers(self) -> Iterable[tuple[BaseTunerLayer, list[str]]]:
        """Yield every layer with LoRA, and the names of the other LoRAs that it holds."""
        for adapter in self.adapters.values():
            for module in adapter.transformer.modules():
                if isinstance(module, BaseTunerLayer):
                    yield module, [name for name in module.lora_A if name != LORA_NAME]

    def _restore(self) -> None:
        """Let the adapter's own LoRA act as its mode says, and nothing train: peft makes trainable what it activates."""
        for layer, _ in self._layers():
            layer.requires_grad_(False)
        for adapter in self.adapters.values():
            adapter.set_mode(adapter.mode, adapter.strength)


def _not_own(names: list[str] | str) -> list[str]:
    given = [names] if isinstance(names, str) else list(names)
    if LORA_NAME in given:
        raise InputError(OWN)
    return given
