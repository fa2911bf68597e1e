"""Which lesions are one, and which part of the split each of them goes to."""
