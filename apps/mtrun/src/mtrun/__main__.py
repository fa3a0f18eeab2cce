"""`python -m mtrun`."""

from .cli import main

raise SystemExit(main())
