"""What reaches a terminal, and how a command ends.

Here: one line for every error, text that cannot command the terminal, progress bars and lines.
Not here: pages (`generator/web/`) and the live view of a build (`generator/monitor/`).
"""
