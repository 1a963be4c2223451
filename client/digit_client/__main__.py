"""Entry point of `python -m digit_client`: the same command as `digits`."""

from digit_client._cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main(prog_name="digits")
