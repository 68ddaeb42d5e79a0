"""Building a dataset on this machine: what is left to render, rendering it, writing what the dataset shows.

Here: the build itself (`local`), what a worker tells of itself (`heartbeat`), and what is checked before anything is rendered.
Not here: building on many machines (`generator/farm/`), and rendering as such (`generator/render/`).
"""
