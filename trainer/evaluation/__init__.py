"""Measures what generated videos show, with the probes that proved the data."""
