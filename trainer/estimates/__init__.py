"""What a training takes, before it starts: operations by formula, memory, bytes alive at once.

Not here: time and room of a whole run (`trainer/runs/expect.py`).
"""
