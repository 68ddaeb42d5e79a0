"""The bundled backbone's autoencoder: its stage of training, and its latents ordered by what they are worth.

Not here: the latents of the clips (`transformer/latents.py`).
"""
