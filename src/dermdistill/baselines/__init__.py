"""Hand-crafted features and classical models: the baselines that a network has to beat."""
