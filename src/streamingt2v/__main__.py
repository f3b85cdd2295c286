"""`python -m streamingt2v`: the same as the command `streamingt2v`."""

from .cli import entry_point

if __name__ == "__main__":
    entry_point()
