"""`python -m digit_client` is `digits`."""

from digit_client._cli import main

main(prog_name="digits")
