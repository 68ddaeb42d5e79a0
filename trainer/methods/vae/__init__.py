"""The method `vae`: a whole autoencoder trains on frames.

`task.py`: batches and losses; `frame_validation.py`: its loss on held-out clips.
Not here: how the bundled autoencoder is made (`trainer/tiny/vae/`).
"""
