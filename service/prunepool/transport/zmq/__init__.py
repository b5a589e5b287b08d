"""Engine processes on this machine: ZeroMQ for messages, shared memory for pixels."""
