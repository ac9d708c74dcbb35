"""The types whose levels are numbers of entries in a table."""
