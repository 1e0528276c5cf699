"""What every script needs to start, check, write and stop well."""
