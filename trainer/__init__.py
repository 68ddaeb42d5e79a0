"""From a versioned dataset to a control adapter, videos under it, and what the probes measure in them."""

__distribution__ = "stopdown"  # the command refuses packages of other programs
