"""What is announced, to whom, when and why: rules without I/O, the files that set them, and the channels."""
