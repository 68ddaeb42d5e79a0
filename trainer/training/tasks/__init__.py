"""What tasks are made of: what the loop asks of one (`base.py`), the flow objective, weights put in the place of others.

Not here: the tasks themselves (`trainer/methods/`), the loop (`trainer/training/loop.py`), batches (`trainer/data/`).
"""
