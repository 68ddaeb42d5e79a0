"""`stopdown play`: an adapter under one's hands, in a local page.

`form` (what a person asked for) → `play_session` (videos, readings, records) → `play_page` (Gradio) → `serve` (loopback).
Not here: generating and reading a video (`trainer/generation/`, `trainer/probing/`).
"""
