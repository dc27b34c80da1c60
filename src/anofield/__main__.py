"""`python -m anofield` is the command line."""

from anofield.cli import main

if __name__ == "__main__":
    main()
