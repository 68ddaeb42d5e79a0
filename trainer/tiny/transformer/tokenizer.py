"""The tokenizer: a Unigram model over our captions' words by their frequency, with characters and bytes for the rest.

Directions that are the same words in another order ("from left to right", "from right to left") are tokens of their own: a text
encoder of two layers did not learn to tell them apart, and half of what was to move sideways moved the wrong way.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scenes.axes import AXES
from scenes.errors import SceneError
from scenes.families import FAMILIES, draw_scene
from scenes.spec import Shot
from trainer.tiny.shared.config import FPS, HEIGHT, WIDTH

SPECIAL = ("<pad>", "</s>", "<unk>")
CHARACTER, BYTE = -14.0, -20.0  # log-probabilities below those of all seen words
MAX_TOKENS = 512  # what Wan's pipeline pads to


def drawn_captions(per_family: int, seed: int = 0) -> Iterator[str]:
    """Yield captions of every scene family, drawn from specs without rendering anything."""
    from scenes.families.captions import caption  # it imports the families' rules, which import the families: those come first

    for position, (name, family) in enumerate(sorted(FAMILIES.items())):
        laws = {axis: AXES[axis].default_law for axis in sorted(family.shows)}
        for index in range(per_family):
            rng = np.random.default_rng((seed, position, index))
            shot = Shot(width=WIDTH, height=HEIGHT, fps=FPS, frames=(5, 9, 13)[index % 3])
            try:
                scene = draw_scene(FAMILIES[name], rng, shot, laws)
            except SceneError:  # a small picture cannot show every axis of some families; its words come from the others
                continue
            yield caption(scene, rng)


def count_words(captions: Iterable[str]) -> Counter[str]:
    """Count words, punctuation marks and the phrases that are told apart by their order alone, in lower case."""
    from scenes.families.captions import DIRECTIONS

    unordered = Counter(tuple(sorted(phrase.split())) for phrase in DIRECTIONS)
    phrases = [phrase for phrase in DIRECTIONS if unordered[tuple(sorted(phrase.split()))] > 1]
    counted: Counter[str] = Counter()
    for text in captions:
        counted.update(re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()))
        counted.update(re.findall("|".join(phrases), text.lower()))
    return counted


def build_tokenizer(counted: Counter[str]) -> PreTrainedTokenizerFast:
    """Return the tokenizer of counted words: one token a known word, mark or phrase, several for anything else."""
    total = sum(counted.values())
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    pieces += [("▁", CHARACTER), *((sign, CHARACTER) for sign in string.printable.strip() if not sign.isupper())]
    known = {f"▁{word.replace(' ', '▁')}": math.log(count / total) for word, count in counted.items()}
    pieces += sorted(known.items())
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Metaspace(split=False)])
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )
