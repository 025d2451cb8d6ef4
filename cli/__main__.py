"""`python -m cli` is `voicemesh`."""

import sys

from cli.main import main

sys.exit(main())
