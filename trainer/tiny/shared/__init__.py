"""What every stage of the bundled backbone uses: its numbers (`config`), its clips, its loop and optimizer.

Not here: the stages themselves (`vae/`, `transformer/`, `quality/`).
"""
