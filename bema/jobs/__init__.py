"""WORK THAT OUTLIVES ITS PROCESS: durable calls, their steps, sleeps, questions and ends; one record, finished whatever dies."""
