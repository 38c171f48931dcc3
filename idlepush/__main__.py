"""`python -m idlepush`."""

from idlepush.cli import main

main()
