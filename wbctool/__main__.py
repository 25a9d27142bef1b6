"""`python -m wbctool` and `torchrun -m wbctool` are the command `wbctool`."""

from wbctool.cli import main

if __name__ == "__main__":
    main()
