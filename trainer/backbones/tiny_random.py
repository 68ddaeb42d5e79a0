"""`tiny-random`: an ordinary WanPipeline folder of true architecture and toy size, random weights from a seed.

For tests and dry runs. All five parts are real ones: transformer, autoencoder, UMT5 text encoder, a tokenizer with words,
characters and bytes, and the UniPC flow scheduler of Wan2.1.
"""

from __future__ import annotations

import multiprocessing
import shutil
import string
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from generator.io.atomic import share
from generator.io.scratch import scratch_folder
from scenes.errors import StopdownError

RECIPE = 1  # part of the folder's name; raise it when the backbone that a seed gives changes
TEXT_DIM = 32
SPECIAL = ("<pad>", "</s>", "<unk>")
WORDS = """
a an and are at background ball bar behind before blue box camera car circle close cone cube dark deep disc distance
field fast focus frame front green in into is left light long motion moves moving near of on one orange over past
plain rectangle red right scene shape shapes short shutter side slow small solid sphere square still the three to top
toward triangle two video wall white with yellow
"""


def tiny_random(cache: Path, seed: int = 0) -> Path:
    """Return the folder of the backbone of a seed in `cache`, building it if it is not there; safe beside other builders."""
    folder = cache / f"tiny-random-{RECIPE}-{seed}"
    if folder.is_dir():
        return folder
    with scratch_folder(folder) as scratch:
        built = scratch / folder.name
        _save(seed, built)
        share(built)
        try:
            built.rename(folder)
        except OSError:  # another process was first; its folder is the same
            if not folder.is_dir():
                raise
            shutil.rmtree(built)
    return folder


def _save(seed: int, folder: Path) -> None:
    """Build and save; apart from the others of an `accelerate launch`, because transformers saves on their first one only."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()) or torch.distributed.get_rank() == 0:
        build_tiny(seed).save_pretrained(folder)
        return
    apart = multiprocessing.get_context("spawn").Process(target=_save, args=(seed, folder))
    apart.start()
    apart.join()
    if apart.exitcode != 0:
        raise StopdownError(f"tiny-random could not be built in {folder.parent.parent}; see what was said above")


def build_tiny(seed: int) -> WanPipeline:
    """Return the pipeline of a seed, on the CPU in float32."""
    tokenizer = build_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = WanTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=16,
            text_dim=TEXT_DIM,
            freq_dim=32,
            ffn_dim=128,
            num_layers=6,
        )
        vae = AutoencoderKLWan(base_dim=8, num_res_blocks=1)
        text_encoder = UMT5EncoderModel(
            UMT5Config(
                vocab_size=len(tokenizer),
                d_model=TEXT_DIM,
                d_kv=8,
                d_ff=64,
                num_layers=2,
                num_heads=4,
                pad_token_id=0,
                eos_token_id=1,
            )
        )
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=3.0
    )
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder.eval(),
        transformer=transformer.eval(),
        vae=vae.eval(),
        scheduler=scheduler,
    )


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a Unigram tokenizer built from a fixed vocabulary: whole words, printable characters, and bytes for the rest."""
    pieces = [(token, 0.0) for token in SPECIAL]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [("▁", -8.0), *((character, -10.0) for character in string.printable.strip())]
    pieces += [(f"▁{word}", -6.0) for word in WORDS.split()]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )
