"""``python -m mooncake_cli``: the command without its installed script."""

from __future__ import annotations

from mooncake_cli.main import main

if __name__ == "__main__":
    main()
