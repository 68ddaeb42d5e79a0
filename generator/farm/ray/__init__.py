"""Building on a Ray cluster: one render actor per slot, and a driver that hands out clips.

Only `generator.commands.build_farm` starts it, where the extra `ray` is installed.
Not here: shards and the way to the store, which every engine shares (`generator/farm/`).
"""
