"""The Request Manager: answers users, hands job chains to runners, and keeps what the runners report."""
