"""Room 1: raw images become arrays, tables and lesion-disjoint splits."""
