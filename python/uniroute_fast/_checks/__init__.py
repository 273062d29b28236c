"""What is given, checked: errors name the argument, what was wrong, and what would do."""
