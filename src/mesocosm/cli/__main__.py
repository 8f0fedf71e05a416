import sys

from mesocosm.cli import main

sys.exit(main())
