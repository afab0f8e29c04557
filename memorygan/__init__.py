"""MemoryGAN: one shared generator as long-term memory, queried part by part."""

from memorygan.openmp import wait_briefly

# Here, because whatever imports torch through this package, or through those above it, passes by first.
wait_briefly()
