"""MemoryGAN: one shared generator as long-term memory, queried part by part."""
