"""What connects the program to JAX, the operating system and the terminal."""
