"""The Request Manager: serves users, dispatches job chains to runners, and stores what runners report."""
