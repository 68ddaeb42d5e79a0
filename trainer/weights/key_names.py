"""Tables of names: the original Wan code's against diffusers', for backbones and for LoRA."""

from __future__ import annotations

PROJECTIONS = {
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
BLOCK_TENSORS = {
    "self_attn.norm_q.weight": "attn1.norm_q.weight",
    "self_attn.norm_k.weight": "attn1.norm_k.weight",
    "cross_attn.norm_q.weight": "attn2.norm_q.weight",
    "cross_attn.norm_k.weight": "attn2.norm_k.weight",
    "norm3.weight": "norm2.weight",  # the original numbers norms in order of appearance in its text, diffusers in order of use
    "norm3.bias": "norm2.bias",
    "modulation": "scale_shift_table",
}
GLOBAL_TENSORS = {
    "patch_embedding.weight": "patch_embedding.weight",
    "patch_embedding.bias": "patch_embedding.bias",
    "text_embedding.0.weight": "condition_embedder.text_embedder.linear_1.weight",
    "text_embedding.0.bias": "condition_embedder.text_embedder.linear_1.bias",
    "text_embedding.2.weight": "condition_embedder.text_embedder.linear_2.weight",
    "text_embedding.2.bias": "condition_embedder.text_embedder.linear_2.bias",
    "time_embedding.0.weight": "condition_embedder.time_embedder.linear_1.weight",
    "time_embedding.0.bias": "condition_embedder.time_embedder.linear_1.bias",
    "time_embedding.2.weight": "condition_embedder.time_embedder.linear_2.weight",
    "time_embedding.2.bias": "condition_embedder.time_embedder.linear_2.bias",
    "time_projection.1.weight": "condition_embedder.time_proj.weight",
    "time_projection.1.bias": "condition_embedder.time_proj.bias",
    "head.head.weight": "proj_out.weight",
    "head.head.bias": "proj_out.bias",
    "head.modulation": "scale_shift_table",
}


def backbone_names(num_layers: int) -> dict[str, str]:
    """Return original name → diffusers' name for every tensor of a text-to-video Wan transformer."""
    names = dict(GLOBAL_TENSORS)
    for block in range(num_layers):
        names |= {f"blocks.{block}.{old}": f"blocks.{block}.{new}" for old, new in BLOCK_TENSORS.items()}
        names |= {
            f"blocks.{block}.{old}.{part}": f"blocks.{block}.{new}.{part}"
            for old, new in PROJECTIONS.items()
            for part in ("weight", "bias")
        }
    return names


def lora_names(num_layers: int) -> dict[str, str]:
    """Return `diffusion_model.` name → peft's name for every LoRA tensor of a backbone of `num_layers` blocks."""
    return {
        f"diffusion_model.blocks.{block}.{old}.{part}.weight": f"blocks.{block}.{new}.{part}.weight"
        for block in range(num_layers)
        for old, new in PROJECTIONS.items()
        for part in ("lora_A", "lora_B")
    }


def inverse(names: dict[str, str]) -> dict[str, str]:
    """Return a table of names the other way round."""
    return {new: old for old, new in names.items()}
