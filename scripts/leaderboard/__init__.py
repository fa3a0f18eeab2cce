"""The leaderboard: every method of the project and what the papers compare it with, trained alike on generated rooms.

    python -m scripts.leaderboard

Each run is an ordinary run folder. Started again, it goes on where it was: runs that are done are skipped, one that was
interrupted is resumed. The page is written at the end, from what the folders say.
"""
