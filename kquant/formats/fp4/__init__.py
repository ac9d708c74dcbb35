"""The types whose levels are floats of four bits."""
