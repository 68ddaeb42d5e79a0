"""Building one dataset on many machines: shards of a plan, engines that render them, one way to the store for all."""
