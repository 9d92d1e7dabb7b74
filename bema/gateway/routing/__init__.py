"""Where a request goes: a pure decision, the table of instances, and the question for one where there is none."""
