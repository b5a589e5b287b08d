"""Requests into batches, batches to a device, answers back; no torch and no HTTP."""
