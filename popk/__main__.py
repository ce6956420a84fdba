"""Run the shell commands: ``python -m popk``."""

from popk.cli import main

main()
