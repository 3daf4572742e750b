"""What a model is worth on documents it never saw: figures, verdict, leaderboard, transfer."""
