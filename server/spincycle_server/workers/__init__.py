"""Several processes that serve one address: a supervisor that starts them, and what they tell each other."""
