"""The far side's library: what a project server offers, as awaitable calls that return values."""
