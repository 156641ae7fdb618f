"""The `shardforge` command."""
