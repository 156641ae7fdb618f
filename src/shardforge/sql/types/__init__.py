"""SQL types: their values in Python, and how values are read, written, ordered and cut to length."""
