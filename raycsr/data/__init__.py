"""What to certify: sources of images, and their decoding to pixels of one size."""
