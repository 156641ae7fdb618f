"""`python -m shardforge`."""

from shardforge.cli.main import main

main()
