"""The bundled backbone: a small real text-to-video model, trained by this project from nothing on clips of its own engine.

Here: the stages from nothing to the shipped folder (`stages`), the shipped folder (`model/`), and training it elsewhere.
Not here: training adapters on it (`trainer/training/`).
"""
