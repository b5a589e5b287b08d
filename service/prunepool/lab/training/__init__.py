"""Training: from a folder of images, with labels, a teacher or both, to a model in the store."""
