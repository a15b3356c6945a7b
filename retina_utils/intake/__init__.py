"""What comes in from elsewhere: how it is decoded, and what about it is doubtful."""
