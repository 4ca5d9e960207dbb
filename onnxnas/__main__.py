"""`python -m onnxnas` is the command line."""

import sys

from onnxnas.cli import main

if __name__ == "__main__":
    sys.exit(main())
