"""All that only evaluates, and never chooses: intervals, comparisons, subgroups, robustness. Imports no torch."""
