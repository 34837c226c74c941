"""The commands of `spincycle`. Each module holds one."""
