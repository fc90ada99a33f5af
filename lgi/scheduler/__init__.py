"""The scheduler: works the event queue (LGI 1.41, Scheduler)."""
