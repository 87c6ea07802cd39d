"""The demonstration: its pretraining, its report, its picture."""
