"""How good the bundled backbone is: its reconstruction, and whether its clips show what they were asked for.

Not here: control accuracy of adapters (`trainer/evaluation/`).
"""
