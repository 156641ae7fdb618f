"""Nodes talking to each other over TCP: frames, calls, and forwarded connections of clients."""
