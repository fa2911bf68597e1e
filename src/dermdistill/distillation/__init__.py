"""What a student learns from its teachers: targets, ensemble, losses."""
