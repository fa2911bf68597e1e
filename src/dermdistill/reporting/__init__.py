"""Room 5: figures, tables and the report; imports no torch."""
