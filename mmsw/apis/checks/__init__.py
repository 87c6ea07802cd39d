"""What is looked at before a run: its data, its heads, its options."""
