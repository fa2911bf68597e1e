"""Room 4: every number, computed from predictions files; imports no torch."""
