"""`python -m atoll_launcher` is `atoll`."""

import sys

from atoll_launcher.main import main

sys.exit(main())
