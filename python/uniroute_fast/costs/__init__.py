"""Money: tokens, budgets, and the cost weight that keeps to them."""
