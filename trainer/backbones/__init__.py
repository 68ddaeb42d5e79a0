"""Backbones: found, checked, loaded as an ordinary WanPipeline, packed into fewer bytes, or described without weights.

Not here: the bundled backbone's training (`trainer/tiny/`), and what a run needs of memory (`trainer/estimates/`).
"""
