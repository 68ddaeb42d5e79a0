"""The method `control` (Less is More): a control adapter and a LoRA beside a frozen backbone.

`task.py`: batches and losses; `adapter.py`: what is saved and loaded; `generate.py`: the sampling loop.
Not here: its settings (`trainer/config/control.py`), its layers (`trainer/control/`).
"""
