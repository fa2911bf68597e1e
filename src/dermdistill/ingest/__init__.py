"""A download, in whatever form, becomes one array of pixels and one clean table."""
