"""Pipelines that take camera values: `ControlledWan`, its schedulers, and other LoRAs beside the adapter.

Users import it as `trainer.pipeline`.
Not here: sweeps over values and their files (`trainer/generation/`).
"""
