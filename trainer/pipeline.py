"""`ControlledWan` under the name that adapters' cards print: `from trainer.pipeline import ControlledWan`."""

from __future__ import annotations

from trainer.pipelines.controlled_wan import ControlledWan

__all__ = ["ControlledWan"]
