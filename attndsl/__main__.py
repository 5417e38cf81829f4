import sys

from attndsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
