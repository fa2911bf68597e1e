"""Tables, figures and the report, from files of metrics. Imports no torch."""
