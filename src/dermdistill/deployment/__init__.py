"""Room 3: export, INT8 quantization, and the runtime that a phone would use."""
