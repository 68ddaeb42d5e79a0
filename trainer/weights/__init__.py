"""Weight files: opened header first, loaded exactly, their keys by name; and a full disk in words.

Not here: other programs' formats (`trainer/formats/`), backbones (`trainer/backbones/`).
"""
