"""The servers of Spin Cycle: Request Manager and Job Runner."""
