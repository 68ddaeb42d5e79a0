"""`stopdown play`: an adapter under one's hands, in a local page.

`form` (what a person asked for) → `session` (videos, readings, records) → `page` (Gradio) → `serve` (loopback).
"""
