"""Compiled blocks, as the trainer compiles them: the same laws, under the tracer with autograd and under the CPU's compiler."""

from __future__ import annotations

import shutil

import pytest
import torch
from trainer_support import adapted, predict, tiny_config, tiny_inputs, tiny_transformer

CONTROLS = [[0.4, -0.9], [-1.0, 0.3]]
COMPILER = next((name for name in ("g++", "clang++", "c++") if shutil.which(name)), None)
CASES = [
    ("aot_eager", torch.float32),
    ("aot_eager", torch.bfloat16),
    pytest.param("inductor", torch.float32, marks=pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")),
]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    """Forget what other tests compiled."""
    torch.compiler.reset()


@pytest.mark.parametrize(("backend", "dtype"), CASES)
def test_compiled_zero_strength_is_the_compiled_backbone(backend: str, dtype: torch.dtype) -> None:
    inputs = tiny_inputs(dtype=dtype)
    bare = tiny_transformer().to(dtype)
    adapter = adapted(dtype=dtype)
    for transformer in (bare, adapter.transformer):
        transformer.compile_repeated_blocks(backend=backend)
    adapter.set_mode("joint", strength=0.0)
    with torch.no_grad():
        expected = predict(bare, inputs)
        assert torch.equal(predict(adapter.transformer, inputs, CONTROLS), expected)
        adapter.set_mode("backbone_only")
        assert torch.equal(predict(adapter.transformer, inputs, CONTROLS), expected)
        if backend == "aot_eager":  # the same kernels as without a compiler; inductor has its own
            assert torch.equal(expected, predict(tiny_transformer().to(dtype), inputs))


def test_compiled_training_has_the_gradients_of_plain_training() -> None:
    config = tiny_config(blocks=(3,), gate="learned")
    gradients = []
    for compiled in (False, True):
        adapter = adapted(config)
        adapter.set_mode("joint")
        adapter.transformer.train()
        adapter.transformer.enable_gradient_checkpointing()
        if compiled:
            adapter.transformer.compile_repeated_blocks(backend="aot_eager")
        predict(adapter.transformer, tiny_inputs(), CONTROLS).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in adapter.parameters().items()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-7, rtol=1e-5, msg=name)
