# Leaves out of a lock file what is for CUDA alone, and torch itself: each entry from its name to its last hash.
# nvidia-ml-py stays: it only reads the figures of a GPU.
/^nvidia-ml-py==/ b
/^(torch|torchvision|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ {
  :more
  /\\$/ { N; b more
  }
  d
}
