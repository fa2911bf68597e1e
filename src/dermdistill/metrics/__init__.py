"""All that may choose, on val: predictions, metrics, calibration, rejection, parity. Imports no torch."""
