"""``python -m orderwatch``, for a checkout that is not installed."""

from orderwatch.cli.main import main

main()
