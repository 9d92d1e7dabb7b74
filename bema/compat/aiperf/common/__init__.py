"""Where AIPerf keeps its factories."""
