"""``python -m p2pstore.agent``: the agent of one home."""

from __future__ import annotations

import sys

from p2pstore.agent.agent import main

if __name__ == "__main__":
    sys.exit(main())
