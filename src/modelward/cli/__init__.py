"""The shell's door: it reads arguments, shows progress, prints results and picks the exit code. Its modules hold no logic of their own."""
