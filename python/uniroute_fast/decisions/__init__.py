"""What a decision was made by, and rules around single decisions."""
