"""The frames of each stream, with the times at which they are due."""
