"""A server of several processes, put together: what each runs, and the parent that keeps them running."""
