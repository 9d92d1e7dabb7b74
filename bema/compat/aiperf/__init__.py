"""The names of AIPerf's hybrid registration: its two factories with the sample endpoints and transports.

Group names are strings in other people's packages, so they stay `aiperf.endpoints` and `aiperf.transports`.
"""
