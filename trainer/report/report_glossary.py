"""The words of a report, beside those of a dataset."""

from __future__ import annotations

from collections.abc import Mapping

from generator.web.glossary import WORDS as DATASET_WORDS

WORDS: Mapping[str, str] = {
    **DATASET_WORDS,
    "ρ": "rank correlation of control and reading in one sweep: 1 in order, 0 in none, −1 the other way round",
    "sweep": "the videos of one prompt from the same noise at several values of the control",
    "c = 0": "the neutral value, where the control asks for nothing",
    "leakage": "how much a sweep of one axis moves what is read of another",
    "arm": "one way to make the videos: a mode of the adapter, words instead of a control, or the bare backbone",
    "decoupled": "the control everywhere it was trained, the LoRA in the conditioned blocks alone",
    "joint": "control and LoRA everywhere",
    "control_only": "the control without the LoRA",
    "lora_only": "the LoRA without the control",
    "backbone_only": "the model as it was before training",
    "noise floor": "the clean backbone from other noise: what chance alone changes",
    "SSF": "mean cosine of features between our videos and the clean backbone's after one denoising step: 1 is the same",
    "SS-FD": "Fréchet distance between those two sets of features: 0 is the same",
    "DVS": "ratio of their variances: 1 is as varied as before",
    "resolution": "the smallest step of the control that two videos are told apart by",
    "loss": "what training lowers: the squared error of the predicted noise direction",
    "gap": "by how much the held-out loss rises when the true control is replaced by the neutral one",
}
