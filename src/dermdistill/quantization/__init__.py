"""INT8: post-training schemes, quantization-aware training, and which candidate is taken."""
