"""The real world behind the ports: clock and threads."""
