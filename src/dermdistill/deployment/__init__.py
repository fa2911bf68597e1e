"""Export, the runtime a phone would use, other formats, benchmarks."""
