"""The frames of each stream, with their due times."""
