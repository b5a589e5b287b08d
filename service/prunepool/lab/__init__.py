"""What is measured: accuracy and speed across the dial, and the profile that comes of it."""
