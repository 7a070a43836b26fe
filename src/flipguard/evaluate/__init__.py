"""Judge an update: generate, judge, compare, report. Needs neither torch nor a GPU to import."""
