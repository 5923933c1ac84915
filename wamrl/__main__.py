"""`python -m wamrl` is `wamrl`."""

from wamrl.cli import main

if __name__ == "__main__":
    main()
