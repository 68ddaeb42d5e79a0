"""The bundled backbone's transformer and text encoder: tokens, latents, forward pass, and their stage of training.

Not here: the autoencoder (`vae/`).
"""
