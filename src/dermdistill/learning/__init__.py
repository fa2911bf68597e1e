"""Room 2: models, losses, and the one loop that trains teachers and students."""
