"""All that only judges: intervals, comparisons, subgroups, robustness. Imports no torch."""
