"""The one loop that trains teachers, students and controls; imports nothing of distillation."""
