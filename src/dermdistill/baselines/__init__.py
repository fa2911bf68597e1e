"""Hand-crafted features and classical models."""
