"""The types whose levels are numbers of a table's entries."""
