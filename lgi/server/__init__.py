"""The project server: use cases, thin routes, the object graph."""
