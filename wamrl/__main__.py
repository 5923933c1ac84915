"""`python -m wamrl` is `wamrl`."""

from wamrl.cli import main

main()
