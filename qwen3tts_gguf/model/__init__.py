"""The two GGUF files: found, checked against their contract, and opened."""
