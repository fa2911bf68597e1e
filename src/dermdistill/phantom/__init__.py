"""The embedded synthetic data set, in the raw form of HAM10000."""
