"""Weight files: opened header first, loaded exactly, keys by name; the number format of products; a full disk in words.

Not here: other programs' formats (`trainer/formats/`), backbones (`trainer/backbones/`).
"""
