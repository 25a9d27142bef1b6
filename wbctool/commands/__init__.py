"""One file per subcommand: its options, one call, what is printed. No image or tensor code."""
