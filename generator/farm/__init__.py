"""Building one dataset on many machines: shards of a plan, and one way to the store for all.

Here: claiming a store, the plan in parts, shards and their end, scripts for Slurm.
Not here: Ray (`ray/`), watching a build (`generator/monitor/`), and the storage itself (`generator/remotes/`).
"""
