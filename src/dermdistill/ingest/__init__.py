"""A download in any of the supported layouts becomes one array of pixels and one clean table."""
